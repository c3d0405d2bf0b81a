"""A run goes out as a directory for other programs, with a card that says what was measured."""

import importlib
import json
import re
import shutil
import sys
from typing import ClassVar

import numpy as np
import pytest
from ml_collections import ConfigDict

from grpo.checks.problems import problems
from grpo.data.templates import TEMPLATES
from grpo.pipeline import STAGES
from grpo.reporting.model_card import Exported, model_card
from grpo.runs.open_policy import former, open_policy
from grpo.tools import export as tool
from models.loading import load_model, save_hf
from models.policy import logits
from models.tokenizer import Tokenizer
from tests.helpers import assert_trees_equal
from tests.small_run import final, launch, sft_and_adapter, workshop

IDS = np.arange(3, 15)[None] % 7 + 4
TEXTS = ("README.md", "run_config.json", "export.json")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    run = sft_and_adapter("sft", "adapter")
    run.data.template = "reasoning_tags"
    run.data.update(max_prompt=128, buckets=(128,))
    folder = tmp_path_factory.mktemp("former") / "run"
    with workshop():
        assert launch(run, folder) == 0
        yield folder


def export(path, output, *words: str):
    flags = tool.parser().parse_args([str(path), f"--output={output}", *words])
    tool.export(flags)
    return output


def refused(capsys, monkeypatch, *words: str) -> str:
    """The one line with which a command line is refused."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_a_merged_directory_is_the_policy(workdir, tmp_path, capsys):
    out = export(workdir, tmp_path / "out" / "model")
    got, want = load_model(out), open_policy(final(workdir, "adapter"))
    np.testing.assert_array_equal(logits(got, IDS), logits(want.merged(), IDS))
    np.testing.assert_allclose(logits(got, IDS), logits(want, IDS), atol=1e-4)
    assert got.own_tokenizer.proto == want.own_tokenizer.proto
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert "<start_of_turn>" in settings["chat_template"]
    stops = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert tuple(stops) == want.own_tokenizer.stop_ids
    assert "README.md" in capsys.readouterr().out and not (out / "NOTICE").exists()
    told = json.loads((out / "export.json").read_text())
    template = TEMPLATES["reasoning_tags"]
    assert told["template"] == {name: template[name] for name in ("instruction", "model_line")}


def test_other_stages_steps_and_dtypes(workdir, tmp_path):
    sft = load_model(export(workdir, tmp_path / "sft", "--policy=sft"))
    assert_trees_equal(sft.params, open_policy(final(workdir, "sft")).params)
    path = workdir / "checkpoints" / "sft" / "00000001"
    early = export(path, tmp_path / "early", "--dtype=bfloat16")
    model = load_model(early)
    assert model.param_dtype == "bfloat16"
    assert_trees_equal(model.params, open_policy(path, dtype="bfloat16").params)
    card = (early / "README.md").read_text()
    assert "at update 1, not the end of that stage" in card and "in bfloat16" in card
    assert "**These are of the end of `sft`, which this export is not.**" in card


def test_an_adapter_comes_with_what_it_stands_on(workdir, tmp_path):
    out = export(workdir, tmp_path / "adapter", "--to=peft")
    got, want = load_model(out / "base", adapter=out), open_policy(final(workdir, "adapter"))
    assert (got.lora, want.lora) != (None, None)
    np.testing.assert_array_equal(logits(got, IDS), logits(want, IDS))
    np.testing.assert_array_equal(logits(got.base(), IDS), logits(want.base(), IDS))
    assert Tokenizer.load(out).proto == want.own_tokenizer.proto
    named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "base"  # beside it, wherever it is taken
    assert "AutoPeftModelForCausalLM" in (out / "README.md").read_text()


def test_an_adapter_on_published_weights_names_them(workdir, tmp_path):
    policy, card, is_published = tool.opened(
        tool.parser().parse_args([str(workdir), "--to=peft", f"--output={tmp_path / 'x'}"])
    )
    assert not is_published  # the end of sft is nobody else's
    card = card._replace(base="google/gemma-3-1b-it")
    tool.write(policy, card, True, tmp_path / "x")
    named = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "google/gemma-3-1b-it"
    assert not (tmp_path / "x" / "base").exists()
    assert "ai.google.dev/gemma/terms" in (tmp_path / "x" / "NOTICE").read_text()


def test_whether_an_adapter_stands_on_the_model_as_loaded(workdir):
    policies, _ = former(final(workdir, "adapter"), None)
    assert tool.chain_of(policies, "adapter") == ["sft", "adapter"]
    assert not tool.stands_on(policies, ["sft", "adapter"])
    assert tool.stands_on(policies, ["sft"])


def test_where_weights_are_from(workdir, monkeypatch, tmp_path):
    """Through former runs; what lies here is no repository, whatever it is called."""
    path = final(workdir, "sft")
    assert tool.base_of({"model": {"path": None}}) is None
    assert tool.base_of({"model": {"path": str(path)}}) is None  # that run had random weights
    assert tool.base_of({"model": {"path": "google/gemma-3-1b-it"}}) == "google/gemma-3-1b-it"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert tool.base_of({"model": {"path": "owner/name"}}) == "name"
    flags = tool.parser().parse_args([str(path), f"--output={tmp_path / 'x'}", "--base=me/own"])
    monkeypatch.setattr(tool, "base_of", lambda _: "me/own")
    config = json.loads((workdir / "config.json").read_text())
    monkeypatch.setattr(tool, "former", lambda *_: (Former(config), "sft"))
    config["model"]["path"] = "me/own"
    assert tool.of_a_run(path, flags)[2]
    config["model"]["path"] = str(path)  # what that run left is not what is published
    assert not tool.of_a_run(path, flags)[2]


class Former:
    """Policies of a run with another config."""

    workdir = None

    def __init__(self, config):
        self.config = config

    def predecessor(self, _):
        return "base"

    def at(self, stage, path):
        return open_policy(path)


def test_a_config_names_no_folder_of_the_machine():
    config = {"a": {"b": "/home/me/x.jsonl", "c": ["~/y"], "d": 3}, "e": "data/z.jsonl"}
    got = tool.without_folders(config)
    assert got == {"a": {"b": "x.jsonl", "c": ["y"], "d": 3}, "e": "data/z.jsonl"}


def test_weights_alone(workdir, tmp_path):
    first = save_hf(open_policy(final(workdir, "sft")), tmp_path / "first")
    out = export(first, tmp_path / "again")
    np.testing.assert_array_equal(logits(load_model(out), IDS), logits(load_model(first), IDS))
    card = (out / "README.md").read_text()
    assert "Nothing: it was exported from weights, not from a run." in card
    assert "It began with the weights of first." in card
    assert not (out / "run_config.json").exists()


def test_the_card_has_what_was_measured(workdir, tmp_path):
    out = export(workdir, tmp_path / "model")
    card = (out / "README.md").read_text()
    results = json.loads((workdir / "evaluations" / "evaluate.json").read_text())
    for name, found in results.items():
        low, high = (found[f"accuracy/strict/{end}"] for end in ("low", "high"))
        (line,) = re.findall(rf"^\| {name} +\| .*% \| .* to .*$", card, re.MULTILINE)
        assert f"{100 * found['accuracy/strict']:.1f} % " in line
        assert f"{100 * low:.1f} to {100 * high:.1f} " in line
    assert "`evaluate`, 4 problems." in card and "Seed 0." in card
    assert "after sft -> adapter" in card and "It began with random weights." in card
    assert re.search(r"^\| optimizer.learning_rate \| +0.01 \| +0.01 \|$", card, re.MULTILINE)
    assert re.search(r"^\| lora.rank +\| +\| +2 \|$", card, re.MULTILINE)
    assert "| `data`  | arithmetic |       | made by this code (Apache 2.0) |" in card
    assert card.startswith('---\nlicense: "other"\n') and "base_model" not in card
    # Nobody need know where it lay.
    for name in TEXTS:
        assert str(tmp_path) not in (out / name).read_text()
        assert str(workdir.parent) not in (out / name).read_text()


def test_the_card_says_how_to_ask_and_how_to_make_it_again(workdir, tmp_path, monkeypatch):
    out = export(workdir, tmp_path / "model")
    ask, again = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert json.dumps(TEMPLATES["reasoning_tags"]["instruction"]) + r" + '\n\n' + question" in ask
    compile(ask, "card", "exec")
    monkeypatch.chdir(out)
    (out / "again.py").write_text(again)
    monkeypatch.syspath_prepend(out)
    config = importlib.import_module("again").get_config()
    assert isinstance(config, ConfigDict) and problems(config.to_dict(), STAGES) == []
    before = json.loads((workdir / "config.json").read_text())
    assert json.loads(config.to_json()) == before


def gemma(**changes) -> str:
    """The card of a Gemma that was trained on this and that."""
    lora = {"rank": 8, "alpha": 8.0, "targets": "q"}
    section = {"template": "plain", "train": "/home/me/own/train.jsonl", "test": None}
    reward = {"weight": 0.5, "options": {"judge": "grader"}}
    config = {
        "seed": 4, "pipeline": ("sft", "grpo"), "models": {"grader": {"path": "/home/me/big"}},
        "data": {"source": "gsm8k", "train": "data/gsm8k/train.jsonl"},
        "datasets": {"own": {"source": "rows", **section}, "unread": {"source": "rows"}},
        "judges": {"grader": {"model": "grader", "name": None}},
        "stages": {
            "sft": {"kind": "sft", "data": "own", "lora": lora, "steps": 7},
            "grpo": {"kind": "grpo", "data": None, "lora": lora, "rewards": {"judged": reward}},
        },
    }  # fmt: skip
    fields = {
        "name": "model", "to": "hf", "dtype": "bfloat16", "size": "gemma3, 26 layers",
        "base": "google/gemma-3-1b-it", "template": TEMPLATES["s1_kaggle"], "config": config,
        "workdir": changes.pop("workdir"), "chain": ["sft", "grpo"], "step": 50,
    }  # fmt: skip
    return model_card(Exported(**{**fields, **changes}))


def test_the_card_of_a_gemma(tmp_path):
    card = gemma(workdir=tmp_path)
    head = card.split("---")[1]
    assert 'license: "gemma"\n' in head and 'base_model: "google/gemma-3-1b-it"\n' in head
    assert "subject to the Gemma Terms of Use" in card and "weights were modified" in card
    assert "MIT" in card and "not known here: say it before you publish" in card
    assert "train: train.jsonl" in card and "train: data/gsm8k/train.jsonl" in card
    assert "/home/me" not in card and "`unread`" not in card
    assert "- judge `grader`: big" in card and "judged x 0.5" in card
    assert 'Its turn began with "model" after `<start_of_turn>`' in card
    assert "no evaluation of the run has `grpo` in it" in card
    assert "random weights" not in card
    packaged = gemma(workdir=tmp_path, base="package:gemma3_270m")
    assert "base_model" not in packaged and 'license: "gemma"' in packaged


def test_what_cannot_go_out_is_refused_in_a_line(workdir, tmp_path, capsys, monkeypatch):
    def line(*words):
        return refused(capsys, monkeypatch, *words)

    free = f"--output={tmp_path / 'free'}"
    assert "there is no such run" in line("/nowhere", free)
    assert "trains sft, adapter" in line(workdir, "--policy=grpo", free)
    assert "has no adapter" in line(workdir, "--policy=sft", "--to=peft", free)
    assert "not a run" in line(final(workdir, "sft"), "--policy=sft", free)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    assert "not an empty directory" in line(workdir, f"--output={tmp_path / 'full'}")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert "HF_TOKEN" in line(workdir, free, "--push=me/model")
    assert not (tmp_path / "free").exists()

    part = tmp_path / "part"
    shutil.copytree(workdir, part)
    shutil.rmtree(part / "checkpoints" / "adapter" / "00000002")
    assert "adapter has not finished" in line(part, free)
    (part / "checkpoints" / "adapter" / "00000001" / "manifest.json").unlink()
    assert "stage adapter has left no checkpoint" in line(part, free)
    step = part / "checkpoints" / "sft" / "00000002"
    array = max((step / "arrays" / "trainable").rglob("*"), key=lambda f: f.stat().st_size)
    array.write_bytes(array.read_bytes()[:-1])
    assert "manifest.json says" in line(part, "--policy=sft", free)
    (part / "config.json").write_text("[]")
    assert "is not that of a run" in line(part, free)
    assert not (tmp_path / "free").exists()


class Hub:
    """Stands in for the Hub."""

    calls: ClassVar[list] = []
    broken = False

    def __init__(self, token):
        self.token = token

    def create_repo(self, repository, *, private, exist_ok):
        self.calls.append(("create", self.token, repository, private, exist_ok))
        if self.broken:
            raise ConnectionError(f"no way\nwith {self.token}")

    def upload_folder(self, *, folder_path, repo_id):
        self.calls.append(("upload", folder_path, repo_id))


def test_push(workdir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    out = export(workdir, tmp_path / "model", "--push=me/model")
    upload = ("upload", str(out), "me/model")
    assert Hub.calls == [("create", "hf_secret", "me/model", True, True), upload]
    assert "https://huggingface.co/me/model" in capsys.readouterr().out
    export(workdir, tmp_path / "public", "--push=me/model", "--public")
    assert Hub.calls[2][3] is False
    assert "owner/name" in refused(
        capsys, monkeypatch, workdir, "--push=model", f"--output={tmp_path / 'x'}"
    )
    monkeypatch.setattr(Hub, "broken", True)
    said = refused(capsys, monkeypatch, workdir, "--push=me/model", f"--output={tmp_path / 'kept'}")
    assert "no way with ..." in said and "hf_secret" not in said
    assert (tmp_path / "kept" / "README.md").is_file()  # and can be uploaded by hand
