"""Worked solutions of a teacher with what they pass through: rows of prompt, chosen, metadata.

    {"domain": "math", "prompt": "...", "chosen": "<reasoning>...</reasoning><answer>8</answer>",
     "metadata_json": "{\"checkpoints\": [\"4 * 2 = 8\"], \"final_answer\": \"8\"}"}

as a public Gemma 3 1B entry keeps them: the metadata are JSON in a text, so that they pass through
any table. An object, as Parquet has it, is read too. The reasoning is what stands in the tags of
the chosen text; one without tags is all reasoning. The level is the number of checkpoints.
"""

from typing import Any

from grpo.data.examples import DataError, Example, json_in, text_in, texts_of_list

REQUIRED = {"question", "chosen", "metadata"}
OPTIONAL = {"id", "domain"}
OPEN, CLOSE, ANSWER = "<reasoning>", "</reasoning>", "<answer>"


def reasoning_of(chosen: str) -> str:
    """The reasoning of a completion that is to be learnt from."""
    if not any(tag in chosen for tag in (OPEN, CLOSE, ANSWER)):
        return chosen.strip()
    _, opened, rest = chosen.partition(OPEN)
    reasoning, closed, _ = rest.partition(CLOSE)
    if not opened or not closed or not reasoning.strip():
        raise DataError(f"the chosen text has tags, and no reasoning between {OPEN} and {CLOSE}")
    return reasoning.strip()


def answer_of(metadata: dict[str, Any]) -> str:
    """The final answer, which may be written as a number."""
    answer = metadata.get("final_answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise DataError("the metadata have no final_answer")
    return answer.strip()


def from_row(row: dict[str, Any], columns: dict[str, str]) -> Example:
    """The example in a row; `columns` says which column is its question and so on."""
    texts = {key: text_in(row, columns[key]) for key in ("id", "domain") if key in columns}
    metadata = json_in(row, columns["metadata"])
    if not isinstance(metadata, dict):
        raise DataError(f"field {columns['metadata']!r} is not an object")
    checkpoints = texts_of_list(metadata.get("checkpoints"), "checkpoints of the metadata")
    return {
        **texts,
        "question": text_in(row, columns["question"]),
        "answer": answer_of(metadata),
        "reasoning": reasoning_of(text_in(row, columns["chosen"])),
        "checkpoints": checkpoints,
        "level": max(1, len(checkpoints)),
    }
