"""The house as its import statements draw it: rooms, their files, what they import.

python -m tests.house            prints the table of docs/house.md
python -m tests.house --write    writes it there
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "house.md"
# From the ground up: a room imports from itself and from rooms that stand before it in this list.
ORDER = (
    "models", "grpo.algorithms", "grpo.statistics", "grpo.data", "grpo.rewards", "grpo.training",
    "grpo.diagnostics", "grpo.storage", "grpo.judges", "grpo.reporting", "grpo.rollout",
    "grpo.evaluation",
    "grpo.checks", "grpo.runs", "grpo.stages", "grpo.pipeline", "grpo.replays", "grpo.sweeps",
    "grpo.certificates", "grpo.parity", "grpo.tools", "grpo.topologies",
    "launch",
)  # fmt: skip
APART = {
    "models": (),  # these two know nothing of each other
    "grpo.algorithms": (),
    "grpo.statistics": (),
    "grpo.judges": ("grpo.data", "grpo.rewards", "grpo.storage"),  # and start no JAX
}
SOURCES = [
    *[p for room in ("configs", "grpo", "models") for p in sorted((ROOT / room).rglob("*.py"))],
    ROOT / "launch.py",
]
BEGIN, END = "<!-- rooms -->", "<!-- /rooms -->"


def module_of(path: pathlib.Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room that a module is in; None for what is not of this house."""
    rooms = (*ORDER, "configs")
    return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)


def may_import(room: str) -> tuple[str, ...]:
    """The rooms below a room; configs are data: they import nothing, and nothing imports them."""
    below = ORDER[: ORDER.index(room)] if room in ORDER else ()
    return (room, *APART.get(room, below))


def imports(path: pathlib.Path) -> set[str]:
    """Every dotted name that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def table() -> str:
    """A row per room, from the ground up: its files, and the rooms it imports."""
    lines = ["| room | files | imports |", "|---|---|---|"]
    for room in (*ORDER, "configs"):
        files = [path for path in SOURCES if room_of(module_of(path)) == room]
        found = {room_of(name) for path in files for name in imports(path)} - {None, room}
        names = [path.stem for path in files if path.stem != "__init__"]
        wanted = [name for name in ORDER if name in found]
        lines.append(f"| `{room}` | {' '.join(names)} | {', '.join(wanted) or 'nothing'} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(with_table(PAGE.read_text()))
    else:
        print(table())
