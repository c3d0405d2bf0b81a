"""Recordings: asked once, the same for ever, whatever kills the run or damages the file."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from grpo.judges.asking import Reply, metrics_of, question
from grpo.judges.http import asker
from grpo.judges.replay import recorded, replayed
from grpo.judges.server import Limits
from grpo.storage.journal import JournalError, read_journal
from tests.misbehaving import serving

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = {"model": "m", "seed": 0}
LIMITS = Limits(
    concurrency=3, item_seconds=60.0, batch_seconds=120.0, attempts=2,
    backoff=0.01, longest_wait=0.01, max_bytes=10_000,
)  # fmt: skip


def questions_of(names):
    return [question(name, SETTINGS) for name in names]


class Answers:
    """Answers by name, b with a failure and c with a score, and counts how often it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, questions):
        names = [each.prompt for each in questions]
        self.asked += names
        return [
            Reply(reason="html: a page", attempts=1) if name == "b"
            else Reply(score=0.25, text="fair", attempts=0) if name == "c"
            else Reply(text=f"{name} \ud800\n\x00é", attempts=2)
            for name in names
        ]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "replies.jsonl"


def cached(replies):
    return [(reply.text, reply.reason, reply.score, reply.attempts) for reply in replies]


def test_a_recording_by_hand(path):
    answers = Answers()
    ask = recorded(answers, path, again=False)
    replies = ask(questions_of("abcab"))
    assert answers.asked == ["a", "b", "c"]
    assert [reply.is_cached for reply in replies] == [False, False, False, True, True]
    assert cached(replies[3:]) == cached(replies[:2])
    a, b, c = (each.key for each in questions_of("abc"))
    assert path.read_text() == (
        f'{{"key":"{a}","text":"a \\ud800\\n\\u0000\\u00e9","attempts":2}}\n'
        f'{{"key":"{b}","reason":"html: a page","attempts":1}}\n'
        f'{{"key":"{c}","text":"fair","score":0.25,"attempts":0}}\n'
    )
    assert all(reply.is_cached for reply in ask(questions_of("cba")))
    assert ask(questions_of("dbd"))[0].attempts == 2
    assert answers.asked == ["a", "b", "c", "d"]
    assert len(read_journal(path)) == 4
    assert ask([]) == []


def test_a_replay_is_what_was(path):
    replies = recorded(Answers(), path, again=False)(questions_of("abc"))
    before = path.read_bytes()
    again = replayed(path)(questions_of("cabd"))
    assert cached(again[:3]) == cached([replies[2], replies[0], replies[1]])
    assert all(reply.is_cached for reply in again[:3])
    assert again[3].reason and again[3].reason.startswith("unknown: the recording has no reply")
    assert "record one" in again[3].reason and not again[3].is_cached
    assert metrics_of(again) == {
        "questions": 4, "cached": 3, "asked": 0, "retried": 0, "answered": 2, "failed": 2,
        "failed/html": 1, "failed/unknown": 1,
    }  # fmt: skip
    assert path.read_bytes() == before
    with pytest.raises(JournalError, match=r"none\.jsonl: no such file: a replay needs"):
        replayed(path.with_name("none.jsonl"))
    assert not path.with_name("none.jsonl").exists()


def test_failures_are_kept_or_asked_again(path):
    first = recorded(Answers(), path, again=False)(questions_of("abc"))
    answers = Answers()
    assert cached(recorded(answers, path, again=False)(questions_of("abc"))) == cached(first)
    assert answers.asked == []
    ask = recorded(answers, path, again=True)
    ask(questions_of("abc"))
    ask(questions_of("abc"))  # but not again and again
    assert answers.asked == ["b"]
    assert [row["key"] for row in read_journal(path)] == [q.key for q in questions_of("acb")]


def test_a_replay_without_the_server(path):
    names = ["a", "b: 500, ok", "c: html", "d: 404", "e: 503", "a"]
    with serving() as server:
        ask = asker(server.url, key_variable=None, settings=SETTINGS, limits=LIMITS)
        replies = recorded(ask, path, again=False)(questions_of(names))
        count = sum(server.asked.values())
    assert count == 1 + 2 + 1 + 1 + 2
    for source in (replayed(path), recorded(ask, path, again=False)):
        assert cached(source(questions_of(names))) == cached(replies)
    (lost,) = recorded(ask, path, again=False)(questions_of(["new"]))
    assert lost.reason == "connection: ConnectError"


def test_equal_runs_have_equal_files(tmp_path):
    """However quick each reply was."""
    files = []
    for run in range(2):
        with serving() as server:
            ask = asker(server.url, key_variable=None, settings=SETTINGS, limits=LIMITS)
            path = tmp_path / f"{run}.jsonl"
            names = [f"q{n}: {'busy' if (n + run) % 2 else 'ok'}" for n in range(6)]
            keys = [question(f"q{n}", SETTINGS) for n in range(6)]
            renamed = dict(zip(keys, names, strict=True))
            recorded(
                lambda qs, ask=ask, of=renamed: ask([q._replace(prompt=of[q]) for q in qs]),
                path, again=False,
            )(keys)  # fmt: skip
            files.append(path.read_bytes())
    assert files[0] == files[1] and files[0].count(b"\n") == 6


def test_a_file_cut_anywhere(path):
    recorded(Answers(), path, again=False)(questions_of("abc"))
    whole = path.read_bytes()
    wanted = cached(replayed(path)(questions_of("abc")))
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        left = whole[:end].count(b"\n")
        old = replayed(path)(questions_of("abc"))
        assert [reply.is_cached for reply in old] == [n < left for n in range(3)]
        answers = Answers()
        assert cached(recorded(answers, path, again=False)(questions_of("abc"))) == wanted
        assert answers.asked == list("abc"[left:])
        assert path.read_bytes() == whole


BAD_ROWS = {
    "{": "not JSON",
    "[]": "a list, not an object",
    "{}": "no field 'key'",
    '{"key":"k","text":"a"}': "no field 'attempts'",
    '{"key":"k","attempts":1}': "a reply is either",
    '{"key":"k","text":"a","reason":"b","attempts":1}': "a reply is either",
    '{"key":"k","score":null,"attempts":1}': "field 'score' is of type NoneType",
    '{"key":"k","score":true,"attempts":1}': "field 'score' is of type bool",
    '{"key":"k","score":NaN,"attempts":1}': "not finite",
    '{"key":"k","score":1e999,"attempts":1}': "not finite",
    '{"key":"k","score":1' + "0" * 400 + ',"attempts":1}': "too large",
    '{"key":"k","text":3,"attempts":1}': "field 'text' is of type int",
    '{"key":3,"text":"a","attempts":1}': "field 'key' is of type int",
    '{"key":"k","text":"a","attempts":1.5}': "field 'attempts' is of type float",
    '{"key":"k","text":"a","attempts":1,"x":1}': "field 'x' is none of key, text",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_damaged_row_is_named(path, row):
    recorded(Answers(), path, again=False)(questions_of("ab"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], row, lines[1], ""]))
    for read in (replayed, lambda p: recorded(Answers(), p, again=False)):
        with pytest.raises(JournalError) as caught:
            read(path)
        said = str(caught.value)
        assert said.startswith(f"{path}:line 2: ") and BAD_ROWS[row] in said and "\n" not in said


def test_the_first_row_of_a_key_counts(path):
    recorded(Answers(), path, again=False)(questions_of("a"))
    row = json.loads(path.read_text())
    with open(path, "a") as file:
        file.write(json.dumps({**row, "text": "later"}) + "\n")
    assert replayed(path)(questions_of("a"))[0].text == row["text"]


def test_an_answer_too_few_is_an_error(path):
    with pytest.raises(ValueError, match="shorter"):
        recorded(lambda questions: [], path, again=False)(questions_of("a"))


KILLED = """
import os, signal, sys
from grpo.judges import asking, replay
path, names, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
write, written = replay.Journal.write, []
def counted(self, row):
    if len(written) == rows:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(row)
    write(self, row)
replay.Journal.write = counted
ask = replay.recorded(
    lambda qs: [asking.Reply(text=q.prompt, attempts=1) for q in qs], path, again=False)
ask([asking.question(name, {"model": "m", "seed": 0}) for name in names])
"""


@pytest.mark.parametrize("rows", [0, 2])
def test_killed_between_two_rows(path, rows):
    command = [sys.executable, "-c", KILLED, str(path), "abcd", str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    answers = Answers()
    replies = recorded(answers, path, again=False)(questions_of("abcd"))
    assert [reply.is_cached for reply in replies] == [n < rows for n in range(4)]
    assert answers.asked == list("abcd"[rows:])


def test_killed_while_it_waits(tmp_path):
    """A batch that is on its way is asked again; those before it are not."""
    path = tmp_path / "replies.jsonl"
    code = (
        "import sys; from grpo.judges import asking, http, replay, server;"
        "s = {'model': 'm', 'seed': 0};"
        "limits = server.Limits(3, 90.0, 90.0, 2, 0.01, 0.01, 10000);"
        "ask = http.asker(sys.argv[1], key_variable=None, settings=s, limits=limits);"
        "ask = replay.recorded(ask, sys.argv[2], again=False);"
        "ask([asking.question(n, s) for n in 'ab']);"
        "ask([asking.question(n, s) for n in ('c', 'd: hang')])"
    )
    with serving() as server:
        process = subprocess.Popen([sys.executable, "-c", code, server.url, str(path)], cwd=ROOT)
        while not server.asked["d: hang"]:
            server.is_over.wait(0.02)
            assert process.poll() is None
        process.kill()
        process.wait()
    names = ["a", "b", "c", "d: hang"]
    replies = replayed(path)(questions_of(names))
    assert [reply.text for reply in replies] == ["a/0", "b/0", None, None]
