"""docs/notebook.ipynb is a notebook, and its cells run, but for installing; the job is smaller."""

import json
import pathlib
import re
import shlex
import sys
import types

import pytest

from tests.commands import answers
from tests.pages import ROOT
from tests.small_run import launch, small, small_grpo, workshop
from tests.test_page_blocks import PROJECT

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text("utf-8"))
CODE = {cell["id"]: cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"}


def source(cell: dict) -> str:
    """The text of a cell, with its !commands as calls of `shell`."""
    return re.sub(r"^( *)!(.*)$", r'\1shell(f"""\2""")', "".join(cell["source"]), flags=re.M)


def test_it_is_a_notebook_of_version_4():
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] == 5
    names = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]{1,64}", n) for n in names)
    for cell in NOTEBOOK["cells"]:
        assert isinstance(cell["metadata"], dict)
        assert all(isinstance(line, str) for line in cell["source"])
        extra = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source", *extra}
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE.values())


def test_jax_is_installed_before_anything_imports_it():
    order = list(CODE)
    before = "".join("".join(CODE[name]["source"]) for name in order[: order.index("install") + 1])
    assert "pip install" in before and not re.search(r"^\s*(import|from) jax", before, re.M)
    # Nor does the kernel do so later, which would take the TPU.
    imports = re.compile(r"^(import|from) (jax|grpo|models)", re.MULTILINE)
    assert not any(imports.search(source(cell)) for cell in CODE.values())
    for target in re.findall(r'"\.\[([\w,]+)\]"', before):
        assert target in PROJECT["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run as the tiny job leaves it, but small."""
    folder = tmp_path_factory.mktemp("notebook")
    config = small()
    config.stages.grpo = small_grpo()
    config.pipeline = ("grpo",)
    with workshop():
        assert launch(config, folder / "runs" / "tiny") == 0
    return folder


def test_its_cells_run(finished, monkeypatch, capsys):
    shown: list[str] = []
    commands: list[list[str]] = []
    display = types.ModuleType("IPython.display")

    def read(text="", filename=""):
        return text or pathlib.Path(filename).read_text()

    vars(display).update(Markdown=read, SVG=read, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(finished)
    names = {"shell": lambda command: commands.append(shlex.split(command))}
    for name, cell in CODE.items():
        if "install" not in cell["metadata"].get("tags", ()):
            exec(compile(source(cell), name, "exec"), names)
    assert shown[0].startswith("#") and shown[1].lstrip().startswith("<svg")
    assert capsys.readouterr().out.count("{'tag_format': ") == 8
    launches = [words[1:] for words in commands if words[1] == "launch.py"]
    assert ["launch.py", "--config=configs/tiny.py", "--workdir=runs/tiny"] in launches
    asked = [[word for word in words if word != "--preflight"] for words in launches]
    for words, (code, said) in zip(asked, answers([[*w, "--check"] for w in asked]), strict=True):
        assert code == 0 and said.endswith("the config is fine\n"), (words, said)
