"""FAILED: a reason on its first line, the traceback beneath it, and no secrets."""

import re

import pytest

from grpo.reporting.failure import failure, reason_of, without_secrets
from grpo.stages import sft
from tests.small_run import launch, small, small_sft

CANARY = "canary"
ENVIRON = {
    "WANDB_API_KEY": f"{CANARY}-0123",
    "MY_PASSWORD": "pa55",  # short, but named like a secret
    "HOME": "/home/someone",
    "HOME_OF_ALL": "/home/someone/else",
    "SHLVL": "1",
    "JAX_PLATFORMS": "cpu",
}


def caught(text: str) -> BaseException:
    """An error with another one behind it, and variables that nobody is to see."""
    held = f"{CANARY} of a variable"
    try:
        try:
            raise OSError(f"behind it: {text}")
        except OSError as error:
            assert held
            raise RuntimeError(f"first\n  of two lines: {text}") from error
    except RuntimeError as error:
        return error


def test_the_reason_comes_first_and_the_traceback_beneath_it():
    first, empty, *rest = failure(caught("7"), {}).split("\n")
    assert first == reason_of(caught("7")) == "RuntimeError: first of two lines: 7"
    assert empty == "" and rest[0] == "Traceback (most recent call last):"
    text = "\n".join(rest)
    assert text.endswith("RuntimeError: first\n  of two lines: 7\n")
    assert "OSError: behind it: 7" in text and "direct cause" in text
    assert re.search(r'File "tests/test_failure\.py", line \d+, in caught\n    raise Runtime', text)


def test_no_value_of_a_variable_of_the_environment():
    secrets = f"{CANARY}-0123 pa55 /home/someone/else/x /home/someone/x 1 cpu"
    text = failure(caught(secrets), ENVIRON)
    assert CANARY not in text and "pa55" not in text and "someone" not in text
    named = "$WANDB_API_KEY $MY_PASSWORD $HOME_OF_ALL/x $HOME/x 1 cpu"
    assert text.count(named) == 3  # of the reason, and of both errors


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://ann:canary@host/x", "https://...@host/x"),
        ("https://canary@host/x?a=1", "https://...@host/x?a=1"),
        ("https://host/x?token=canary&a=1", "https://host/x?token=...&a=1"),
        ("{'Authorization': 'Bearer canary'}", "{'Authorization': 'Bearer ...'}"),
        ("api_key=canary, then", "api_key=... then"),
        ("hf_canaryCANARYcanary", "..."),
        ("a sk-canary-canary-canary", "a ..."),
        ("ghp_canarycanarycanary.", "...."),
        ("shape [3, 4] at layers/0/q: ann@host", "shape [3, 4] at layers/0/q: ann@host"),
        ("a monkey, hf_short", "a monkey, hf_short"),
    ],
)
def test_nothing_that_looks_like_a_secret(text, wanted):
    assert without_secrets(text, {}) == wanted


def test_what_a_terminal_would_obey():
    text = failure(caught("\x1b[2Jred\x07 \udcff \u202e"), {})
    assert all(char == "\n" or char.isprintable() for char in text)
    assert "first of two lines: red \ufffd" in text
    text.encode("utf-8")


def test_a_run_that_fails(tmp_path, monkeypatch):
    def broken(run, stage, policies):
        raise KeyError(f"{CANARY}-0123 \udcff")

    monkeypatch.setenv("WANDB_API_KEY", f"{CANARY}-0123")
    monkeypatch.setattr(sft, "run", broken)
    config = small()
    config.stages.sft, config.pipeline = small_sft(), ("sft",)
    with pytest.raises(KeyError):
        launch(config, tmp_path / "run")
    first, *rest = (tmp_path / "run" / "FAILED").read_text("utf-8").split("\n")
    assert first == "KeyError: '$WANDB_API_KEY \\udcff'"
    assert rest[1].startswith("Traceback") and any("in broken" in line for line in rest)
    assert not (tmp_path / "run" / "DONE").exists()


def test_a_full_disk_does_not_hide_why_a_run_failed(tmp_path, monkeypatch):
    def broken(run, stage, policies):
        (run.workdir / "FAILED").mkdir()  # so that it cannot be written
        raise KeyError("the reason")

    monkeypatch.setattr(sft, "run", broken)
    config = small()
    config.stages.sft, config.pipeline = small_sft(), ("sft",)
    with pytest.raises(KeyError, match="the reason") as error:
        launch(config, tmp_path / "run")
    assert error.value.__context__ is None
