"""What the tests of refusals share: the tiny experiment changed, and a file with a bad row."""

import json

from configs import tiny

GOOD = [{"question": f"{n}+1?", "answer": f"so\n#### {n + 1}"} for n in range(20)]
LINES = "".join(f"{json.dumps(row)}\n" for row in GOOD)
TEST = json.dumps({"question": "50+1?", "answer": "so\n#### 51"}) + "\n"


def lines_with(row, number: int = 3) -> str:
    """The good lines with another one among them."""
    lines = LINES.splitlines(keepends=True)
    lines[number - 1] = (row if isinstance(row, str) else json.dumps(row)) + "\n"
    return "".join(lines)


def changed(changes, variant: str = "") -> dict:
    """The tiny experiment with some fields set, added, or (with ...) removed."""
    config = tiny.get_config(variant).to_dict()
    for path, value in changes.items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[field] = value
        if value is ...:
            del section[field]
    return config
