"""How an example becomes a prompt, and its worked solution a target for supervised training.

A template is data:

    instruction   what stands before the question in the user's turn, or ""
    model_line    how the model's turn begins, after <start_of_turn>
    target        what the model is to write there
    shots         worked examples that stand before the question; a dataset adds its own

A shot is an earlier exchange of the same conversation: its question put as any other is, with the
instruction, and its target as what the model wrote. So the prompt with shots is the prompt without
them, and before it, for each shot, its own prompt, its target and the end of that turn.

`s1_kaggle` and `s1_repo` are, byte for byte, the prompts of Tunix's GRPO demo: as it ran on Kaggle
(google-tunix 0.1.3), where the newline after "model" is missing and so is the model's to write, and
as its repository has it since November 2025 (examples/grpo_gemma.ipynb). `s3` is the prompt of the
public "supervised fine-tuning full" notebook. All of them put the instruction into the user's turn:
Gemma 2 has no system role. The others are this project's.
"""

from collections.abc import Sequence
from typing import Any

from grpo.data.examples import DataError, Example
from models.chat import Message, encode_chat, render
from models.tokenizer import START_OF_TURN, Tokenizer

Template = dict[str, Any]

LINES = "<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"
ONE_LINE = "<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"
SECTIONS = LINES.format(reasoning="Steps: {reasoning}\nResult: {answer}", answer="{answer}")

TEMPLATES: dict[str, Template] = {
    "plain": {"instruction": "", "model_line": "model\n", "target": ONE_LINE},
    "reasoning_tags": {
        "instruction": (
            "Solve the problem step by step. Write your reasoning between <reasoning> and "
            "</reasoning>, then the final answer alone between <answer> and </answer>."
        ),
        "model_line": "model\n",
        "target": LINES,
    },
    "s1_kaggle": {
        "instruction": (
            "You are given a problem. Think about the problem and provide your reasoning. Place it "
            "between <reasoning> and </reasoning>. Then, provide the final answer (i.e., just one "
            "numerical value) between <answer> and </answer>."
        ),
        "model_line": "model",
        "target": "\n" + LINES,
    },
    "s1_repo": {
        "instruction": (
            "You are given a problem. First, think about the problem and provide your reasoning. "
            "Place it between <reasoning> and </reasoning>. Then, provide the final answer (i.e., "
            "just one numerical value) between <answer> and </answer>."
        ),
        "model_line": "model\n",
        "target": LINES,
    },
    "s3": {
        "instruction": (
            "Solve the math problem. You must STRICTLY follow this format:\n"
            "1. Enclose your step-by-step logic inside <reasoning>...</reasoning> tags.\n"
            "2. Enclose the final numerical result inside <answer>...</answer> tags."
        ),
        "model_line": "model\n",
        "target": LINES,
    },
    "sections": {
        "instruction": (
            "Solve the problem. Between <reasoning> and </reasoning> write two sections, one that "
            'begins with "Steps:" and one that begins with "Result:". Then write the final answer '
            "alone between <answer> and </answer>."
        ),
        "model_line": "model\n",
        "target": SECTIONS,
    },
    "verdict": {"instruction": "", "model_line": "model\n", "target": "{answer}"},
    "plain_sections": {"instruction": "", "model_line": "model\n", "target": SECTIONS},
}


def prompt_messages(example: Example, template: Template) -> list[dict[str, Any]]:
    """The conversation that asks an example's question, with the shots as earlier turns."""
    messages = []
    for shot in template.get("shots", ()):
        answered = {"role": "assistant", "content": target_text(shot, template)}
        messages += [asked(shot, template), answered]
    return [*messages, asked(example, template)]


def asked(example: Example, template: Template) -> dict[str, Any]:
    """The turn that asks one question."""
    parts = [part for part in (template["instruction"], example["question"]) if part]
    return {"role": "user", "content": "\n\n".join(parts)}


def prompt_text(example: Example, template: Template) -> str:
    """The prompt as one text without <bos>, for reading and comparing."""
    # Without a system message the two families are written alike.
    turn = render(prompt_messages(example, template), "gemma3", reply=False)
    return turn.removeprefix("<bos>") + START_OF_TURN + template["model_line"]


def prompt_ids(tokenizer: Tokenizer, example: Example, template: Template) -> list[int]:
    """The ids of `prompt_text` after <bos>; no example can end its turn, whatever it says."""
    return conversation_ids(tokenizer, prompt_messages(example, template), template)


def conversation_ids(
    tokenizer: Tokenizer, messages: Sequence[Message], template: Template
) -> list[int]:
    """The ids of a conversation that waits for the model's turn, which begins as the template's."""
    ids = encode_chat(tokenizer, messages, reply=False)
    return [*ids, tokenizer.start_of_turn_id, *tokenizer.encode(template["model_line"], bos=False)]


def target_text(example: Example, template: Template) -> str:
    """What the model is to write for an example, up to where it ends its turn."""
    if not example["reasoning"]:
        raise DataError(f"{example['id']}: has no reasoning to write a target from")
    return template["target"].format(reasoning=example["reasoning"], answer=example["answer"])


def target_ids(tokenizer: Tokenizer, example: Example, template: Template) -> list[int]:
    """The ids of `target_text` and the end of the turn, which the model must learn to write too."""
    return completion_ids(tokenizer, target_text(example, template))


def completion_ids(tokenizer: Tokenizer, text: str, *, is_cut_off: bool = False) -> list[int]:
    """The ids of a completion; one that was cut off has no end of the turn."""
    end = [] if is_cut_off else [tokenizer.end_of_turn_id]
    return [*tokenizer.encode(text, bos=False), *end]
