"""Prompted baselines: what is asked, and what cannot be."""

import pytest

from grpo.checks import problems as checks
from grpo.data.baselines import baseline_buckets, baseline_template, label_of, require_fitting
from grpo.data.datasets import Dataset
from grpo.data.examples import DataError
from grpo.data.templates import TEMPLATES, prompt_ids, prompt_text
from grpo.pipeline import STAGES
from grpo.tools.evaluate import only_evaluation
from models.chat import render
from tests.refusals import changed
from tests.tiny_run import EXAMPLES, tokenizer

E = "stages.evaluate."
WITH_SHOTS = {f"{E}baselines": (0, 4), f"{E}baseline_prompt": 300}


def dataset(template="s1_kaggle", train=EXAMPLES, shots=()):
    return Dataset([*train], [], [*EXAMPLES], {**TEMPLATES[template], "shots": [*shots]}, {})


def test_the_base_is_asked_as_its_chat_template_has_it():
    """The demo's instruction and question, and the newline after "model" that it leaves out."""
    data, example = dataset(), EXAMPLES[3]
    asked = f"{TEMPLATES['s1_kaggle']['instruction']}\n\n{example['question']}"
    own = prompt_text(example, data.template)
    got = prompt_text(example, baseline_template(data, 0))
    assert own.endswith("<start_of_turn>model") and got == own + "\n"
    assert "<bos>" + got == render([{"role": "user", "content": asked}], "gemma3")


def test_shots_are_earlier_turns():
    """The first two with a worked solution, with the instruction, answered as is asked for."""
    train = [{**EXAMPLES[0], "reasoning": None}, *EXAMPLES[1:]]
    template = baseline_template(dataset("reasoning_tags", train), 2)
    messages = []
    for shot in (EXAMPLES[1], EXAMPLES[2]):
        messages += [
            {"role": "user", "content": f"{template['instruction']}\n\n{shot['question']}"},
            {"role": "assistant", "content": (
                f"<reasoning>\n{shot['reasoning']}\n</reasoning>\n<answer>\n{shot['answer']}\n</answer>"
            )},
        ]  # fmt: skip
    question = f"{template['instruction']}\n\n{EXAMPLES[6]['question']}"
    messages.append({"role": "user", "content": question})
    assert "<bos>" + prompt_text(EXAMPLES[6], template) == render(messages, "gemma3")


def test_a_datasets_own_shots_come_first_and_are_none_of_a_baseline_without():
    data = dataset(train=EXAMPLES[1:], shots=EXAMPLES[:1])
    shown = [one["id"] for one in baseline_template(data, 2)["shots"]]
    assert shown == [EXAMPLES[0]["id"], EXAMPLES[1]["id"]]
    assert baseline_template(data, 0)["shots"] == []
    assert data.template["shots"] == EXAMPLES[:1]  # as it was


def test_too_few_worked_solutions():
    train = [{**example, "reasoning": None} for example in EXAMPLES[:5]] + EXAMPLES[5:]
    with pytest.raises(
        DataError, match=r"^baselines: 3 shots are to be shown, 2 training examples"
    ):
        baseline_template(dataset(train=train), 3)


def test_labels_are_no_names_of_stages():
    clash = {f"{E}policies": (label_of(4),)}
    assert any(line.startswith(f"{E}policies: 'base, 4") for line in problems(clash))
    named = {"stages.base, 4 shots": changed({})["stages"]["sft"]}
    assert any("expected another name" in line for line in problems(named))


def problems(changes):
    return checks.problems(changed(changes), STAGES)


def test_a_config_needs_one_line_for_baselines():
    """No second dataset, and no further bucket."""
    assert problems(WITH_SHOTS) == problems({f"{E}baselines": (0,)}) == []
    config = changed(WITH_SHOTS)
    stage = config["stages"]["evaluate"]
    assert baseline_buckets(config, stage, 4) == (300,)
    assert baseline_buckets(config, stage, 0) == (38,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{E}baselines": 4}, "baselines=4: expected a tuple"),
        ({f"{E}baselines": (-1,)}, "baselines=(-1,): expected an integer, at least 0"),
        ({f"{E}baselines": (0, 0)}, "baselines=(0, 0): one is there twice"),
        ({f"{E}baselines": (0, 4)}, "baseline_prompt=None: baselines=(0, 4) need it: the tokens"),
        ({f"{E}baseline_prompt": 99}, "baseline_prompt=99: no baseline has shots: set it to None"),
        ({**WITH_SHOTS, f"{E}split": "train"}, "split='train': shots of baselines are training"),
    ],
)
def test_what_cannot_be(changes, said):
    (line,) = problems(changes)
    assert line.startswith(f"{E}{said}") and "\n" not in line


def config_with(limit, baselines=(0, 2)):
    config = changed({f"{E}baselines": baselines, f"{E}baseline_prompt": limit, f"{E}examples": 3})
    config["data"] |= {"max_prompt": 200, "buckets": (200,)}
    return config


def test_prompts_that_do_not_fit_are_an_error_of_one_line():
    """Up to the longest of those that are asked; others are not looked at."""
    data = dataset("plain", EXAMPLES)
    longest = max(
        len(prompt_ids(tokenizer(), example, baseline_template(data, 2)))
        for example in EXAMPLES[:3]
    )
    require_fitting(config_with(longest), "evaluate", data, tokenizer())
    with pytest.raises(DataError) as error:
        require_fitting(config_with(longest - 1), "evaluate", data, tokenizer())
    assert str(error.value) == (
        f"stages.evaluate.baselines: with 2 shots the longest prompt has {longest} tokens, "
        f"stages.evaluate.baseline_prompt allows {longest - 1}"
    )
    config = config_with(None, (0,))
    config["data"] |= {"max_prompt": 9, "buckets": (9,)}
    with pytest.raises(DataError, match=r"with 0 shots .* data\.buckets allows 9"):
        require_fitting(config, "evaluate", data, tokenizer())


def test_an_evaluation_of_a_checkpoint_has_no_baselines():
    """They would be of the checkpoint."""
    config = only_evaluation(changed(WITH_SHOTS), "runs/x")
    assert checks.problems(config, STAGES) == []
    assert config["stages"]["evaluate"]["baselines"] == ()
