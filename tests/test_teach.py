"""A teacher's solutions: what is kept, why the rest is not, stopped and started again."""

import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from grpo.data.domains import KEYWORDS, domain_of
from grpo.data.forms import FILES
from grpo.judges import teacher
from grpo.judges.asking import Reply
from grpo.judges.collecting import IN_A_ROW, Sample, TeacherError, collect, normalised
from grpo.judges.teacher import COLUMNS, MOST, PROMPT, checkpoints_of, prompt_of
from grpo.tools import teach
from models.tokenizer import Tokenizer
from tests.misbehaving import serving
from tests.tiny_run import tokenizer

ROOT = pathlib.Path(__file__).parent.parent
CANARY = "sk-canaryCanary0123456789"
trace_of = functools.partial(teacher.trace_of, least=1)
EXAMPLE = {"id": "a:1", "question": "What is 4 times 2, less 3?", "answer": "5"}


def solution(reasoning="4 * 2 = 8, and 8 - 3 = 5.", answer="5", listed="4 * 2 = 8\n8 - 3 = 5"):
    return (
        f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"
        f"<checkpoints>\n{listed}\n</checkpoints>"
    )


def test_a_trace_by_hand():
    assert trace_of(EXAMPLE, f"\n {solution()} \n") == {
        "domain": "math",
        "prompt": "What is 4 times 2, less 3?",
        "chosen": "<reasoning>\n4 * 2 = 8, and 8 - 3 = 5.\n</reasoning>\n<answer>\n5\n</answer>",
        "metadata_json": '{"checkpoints": ["4 * 2 = 8", "8 - 3 = 5"], "final_answer": "5"}',
    }
    row = trace_of({**EXAMPLE, "domain": "sums"}, solution(answer="$5.00"))
    assert isinstance(row, dict) and row["domain"] == "sums"
    assert "$5.00" in row["chosen"] and json.loads(row["metadata_json"])["final_answer"] == "5"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "form"),
        ("5", "form"),
        (solution().partition("<checkpoints>")[0], "form"),
        (solution().removesuffix("</checkpoints>"), "form"),
        (solution() + " Done.", "form"),
        ("Sure! " + solution(), "form"),
        (solution() + solution(), "form"),
        (solution().replace("</reasoning>\n", "</reasoning> so "), "form"),
        (solution(reasoning=" "), "form"),
        (solution(answer=" "), "form"),
        (solution(reasoning="<answer>5</answer> 4 * 2 = 8"), "form"),
        (solution(answer="8"), "wrong"),
        (solution(answer="5 or 8"), "wrong"),
        (solution(answer="x" * 99_000), "wrong"),
        (solution(listed=""), "checkpoints"),
        (solution(listed="4*2=8"), "checkpoints"),
        (solution(listed="8\n5"), "checkpoints"),
        (solution(listed="\n".join(f"4 * 2 = 8{n}" for n in range(MOST + 1))), "checkpoints"),
        ("<checkpoints>" * 50_000, "form"),
        (solution(listed="- " * 200_000 + "\n" * 200_000), "checkpoints"),
        (solution(listed="4 * 2 = 8\n" * 100_000, reasoning="9 " * 40_000), "checkpoints"),
        ("<reasoning>" * 90_000, "form"),
        ("\ud800\x00\u202e", "form"),
    ],
)
def test_why_a_reply_is_not_kept(reply, reason):
    start = time.process_time()
    assert trace_of(EXAMPLE, reply) == reason
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        ("8 - 3 = 5\n4 * 2 = 8", ["4 * 2 = 8", "8 - 3 = 5"]),  # in the reasoning's order
        ("- 4 * 2 = 8\n  * 8 - 3 = 5 ", ["4 * 2 = 8", "8 - 3 = 5"]),
        ("1. 4 * 2 = 8\n2) 8 - 3 = 5\n3.", ["4 * 2 = 8", "8 - 3 = 5"]),
        ("4 * 2 = 8\n4 * 2 = 8\n\n4*2=8", ["4 * 2 = 8"]),
        ("8 - 3 = 5", ["8 - 3 = 5"]),  # its own sign is no bullet
        ("= 8", ["= 8"]),
        ("8\n 5\n=", []),
        ("", []),
    ],
)
def test_checkpoints_are_those_of_the_reasoning(listed, kept):
    assert checkpoints_of(listed, "So 4 * 2 = 8, and 8 - 3 = 5.") == kept


def test_as_many_checkpoints_as_may_be():
    lines = [f"{n} + 1 = {n + 1}" for n in range(100, 100 + MOST)]
    assert checkpoints_of("\n".join(reversed(lines)), "; ".join(lines)) == lines
    assert checkpoints_of("\n".join([*lines, "one more"]), "; ".join(lines)) == []


def test_the_prompt_asks_for_the_form():
    prompt = prompt_of(EXAMPLE)
    assert prompt.endswith("Problem:\nWhat is 4 times 2, less 3?")
    tags = ("<reasoning>", "</reasoning>", "<answer>", "</answer>", "<checkpoints>")
    assert [PROMPT.count(tag) for tag in (*tags, "</checkpoints>")] == [1] * 6


@pytest.mark.parametrize(
    ("question", "domain"),
    [
        ("How many apples does each child have altogether?", "math"),
        ("Write a Python function that reverses a string.", "code"),
        ("How many moles of water form out of two moles of hydrogen?", "science"),
        ("What does this LOOP output?", "code"),
        ("Who wrote Hamlet?", "general"),
        ("", "general"),
        ("many " * 100_000 + "python loop", "code"),  # a word counts once
    ],
)
def test_a_router_by_words(question, domain):
    assert domain_of({"question": question}) == domain
    assert domain_of({"question": question, "domain": "own"}) == "own"


def test_a_word_is_of_one_domain():
    words = [word for own in KEYWORDS.values() for word in own]
    assert len(words) == len(set(words)) and all(word.islower() for word in words)


# From here on whole commands. What the teacher says is told by question and seed.
ROWS = [
    {"question": "What is 4 times 2?", "answer": "8"},
    {"question": "What is 5 times 2?", "answer": "10"},
    {"question": "What  is 4 times 2?", "answer": "8"},  # once more
    {"question": "What is 6 times 2?", "answer": "12"},
    {"question": "What is 7 times 2?", "answer": "14"},
    {"question": "How much are 4 times 2?", "answer": "8"},
]


def product(question, answer=""):
    n = int(question.split()[-3])
    return solution(f"{n} * 2 = {2 * n}", answer or str(2 * n), f"{n} * 2 = {2 * n}")


def said(prompt, seed):
    """Right at once; or wrong, without form, and right at the third time."""
    question = prompt.partition("Problem:\n")[2]
    if "6 times" in question:
        return "I think it is 12."
    if "5 times" in question and seed < 9:
        return product(question, "11")
    return product(question)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def flags_of(folder, url, **changes):
    flags = {
        "questions": folder / "ask.jsonl", "out": folder / "out", "url": url, "model": "m",
        "key": "TEACHER_KEY", "seed": 7, "samples": 3, "batch": 2, "concurrency": 2,
        "backoff": 0.01, "longest_wait": 0.01, "attempts": 2, "item_seconds": 100, "min_kept": 0.2,
        **changes,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def command(monkeypatch, folder, url, code=0, **changes):
    return run(monkeypatch, flags_of(folder, url, **changes), code)


def run(monkeypatch, words, code):
    monkeypatch.setattr(sys, "argv", ["teach", *words])
    if not code:
        return teach.main()
    with pytest.raises(SystemExit) as caught:
        teach.main()
    assert caught.value.code == code


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_whole_command(folder, monkeypatch, capsys):
    with serving(said) as server:
        command(monkeypatch, folder, server.url)
        asked = [(b["messages"][0]["content"].split("\n")[-1], b["seed"]) for b in server.bodies]
    first = ["What is 4 times 2?", "What is 5 times 2?", "What is 6 times 2?",
             "What is 7 times 2?", "How much are 4 times 2?"]  # fmt: skip
    left = ["What is 5 times 2?", "What is 6 times 2?", "How much are 4 times 2?"]
    assert sorted(asked[:5]) == sorted((question, 7) for question in first)
    assert sorted(asked[5:8]) == sorted((question, 8) for question in left)
    # The third sample has a seed with which 5 times 2 is right.
    assert sorted(asked[8:]) == sorted((question, 9) for question in left)
    kept = rows_in(folder / "out" / "traces.jsonl")
    assert [row["prompt"] for row in kept] == [first[0], first[1], first[3]]
    assert kept[1] == {
        "domain": "math",
        "prompt": "What is 5 times 2?",
        "chosen": "<reasoning>\n5 * 2 = 10\n</reasoning>\n<answer>\n10\n</answer>",
        "metadata_json": '{"checkpoints": ["5 * 2 = 10"], "final_answer": "10"}',
    }
    assert rows_in(folder / "out" / "dropped.jsonl") == [
        {"id": "ask:4", "reason": "form"}, {"id": "ask:6", "reason": "repeated"},
    ]  # fmt: skip
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["1 of 5 questions have a solution", "2 of 5 questions have a solution"]
    assert out[out.index("kept 3 of 5 questions (60.0%)") + 1 :] == [
        "kept: math 3", "dropped: form 1", "dropped: repeated 1",
        "teacher: answered 11", "teacher: asked 11", "teacher: cached 0", "teacher: failed 0",
        "teacher: questions 11", "teacher: retried 0",
    ]  # fmt: skip


def test_what_is_written_is_what_a_dataset_reads(folder, monkeypatch):
    with serving(said) as server:
        command(monkeypatch, folder, server.url)
    section = {"columns": COLUMNS, "max_bad": 0.0}
    found, report = FILES["traces"].load(str(folder / "out" / "traces.jsonl"), section)
    assert report == {"rows": 3, "duplicates": 0, "bad": []}
    assert found[0] == {
        "id": "traces:1", "domain": "math", "question": "What is 4 times 2?", "answer": "8",
        "reasoning": "4 * 2 = 8", "checkpoints": ["4 * 2 = 8"], "level": 1,
    }  # fmt: skip


def test_the_same_command_asks_nothing_twice(folder, monkeypatch, capsys):
    names = ("traces.jsonl", "dropped.jsonl", "replies.jsonl")
    with serving(said) as server:
        command(monkeypatch, folder, server.url)
        before = [(folder / "out" / name).read_bytes() for name in names]
    command(monkeypatch, folder, server.url)  # which is gone
    assert [(folder / "out" / name).read_bytes() for name in names] == before
    assert "teacher: asked 0" in capsys.readouterr().out


def test_what_failed_is_asked_again_by_the_next_command(folder, monkeypatch, capsys):
    rows = [*ROWS[:2], {"question": "What is 3 times 2: 404, 404, ok", "answer": "6"}]
    (folder / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(lambda prompt, seed: product(prompt.partition(": 404")[0] + " ?")) as server:

        def answer(prompt, seed):
            return product(prompt.split("\n")[-1].partition(":")[0] + "?")

        server.answer = answer
        command(monkeypatch, folder, server.url, samples=1)
        assert rows_in(folder / "out" / "dropped.jsonl")[0]["reason"].startswith(
            "failed: http_404: Not Found "
        )
        assert "dropped: failed: http_404 1" in capsys.readouterr().out
        command(monkeypatch, folder, server.url, samples=1)
        command(monkeypatch, folder, server.url, samples=1)
        assert rows_in(folder / "out" / "dropped.jsonl") == []
        assert sorted(server.asked.values()) == [1, 1, 3]


def test_killed_and_started_again(folder, monkeypatch):
    rows = [*ROWS[:2], ROWS[3], {"question": "What is 9 times 2: hang, ok", "answer": "18"}]
    (folder / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(prompt, seed):
        return product(prompt.split("\n")[-1].partition(":")[0].rstrip("?") + "?")

    with serving(answer) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "grpo.tools.teach", *flags_of(folder, server.url)], cwd=ROOT
        )
        while not any("9 times" in prompt for prompt in server.asked):
            server.is_over.wait(0.05)
            assert process.poll() is None
        process.kill()
        process.wait()
        assert not (folder / "out" / "traces.jsonl").exists()
        command(monkeypatch, folder, server.url)
        counts = {p.split("\n")[-1]: n for p, n in server.asked.items()}
    assert counts.pop("What is 6 times 2?") in (1, 2)  # of the batch that was on its way
    assert counts == {
        "What is 4 times 2?": 1, "What is 5 times 2?": 1, "What is 9 times 2: hang, ok": 2,
    }  # fmt: skip
    assert len(rows_in(folder / "out" / "traces.jsonl")) == 4


def test_a_key_that_is_not_taken_ends_it(folder, monkeypatch, capsys):
    rows = [{"question": f"What is {n} times 2: 401", "answer": "6"} for n in range(9)]
    (folder / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving() as server:
        command(monkeypatch, folder, server.url, code=2, concurrency=1)
        assert sum(server.asked.values()) == 1
    out, err = capsys.readouterr()
    assert err == "error: the teacher does not answer: http_401: Unauthorized\n"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 2  # the questions, the replies
    assert not any("anary" in text for text in (out, err, *(p.read_text() for p in files)))


def test_secrets_in_a_url_are_refused(folder, monkeypatch, capsys):
    command(monkeypatch, folder, f"https://user:{CANARY}@host/v1", code=2)
    out, err = capsys.readouterr()
    assert err == (
        "error: the server to ask: has a user or password in it: name an environment variable "
        "with a key instead\n"
    )
    assert out == "" and os.listdir(folder) == ["ask.jsonl"]


def test_a_teacher_that_is_not_there_ends_it(folder, monkeypatch, capsys):
    rows = [{"question": f"What is {n} times 2?", "answer": "6"} for n in range(IN_A_ROW + 30)]
    (folder / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving() as server:
        pass
    command(monkeypatch, folder, server.url, code=2, batch=10, concurrency=5)
    assert capsys.readouterr().err == (
        "error: the teacher does not answer: connection: ConnectError\n"
    )
    assert len(rows_in(folder / "out" / "replies.jsonl")) == IN_A_ROW


@pytest.mark.parametrize(
    ("answered", "asked"), [(None, IN_A_ROW), (IN_A_ROW, 2 * IN_A_ROW), (IN_A_ROW + 1, IN_A_ROW)]
)
def test_how_many_in_a_row(answered, asked):
    """A reply at the last moment, and the count begins anew."""
    examples = [{**EXAMPLE, "id": str(n)} for n in range(2 * IN_A_ROW)]
    seen = []

    def ask(questions):
        seen.extend(questions)
        if len(seen) == answered:
            return [Reply(text="5", attempts=1)]
        return [Reply(reason="html: x", attempts=1)]

    with pytest.raises(TeacherError, match="does not answer: html: x"):
        list(collect(examples, [Sample(ask, {})], prompt_of=prompt_of, read=trace_of, batch=1))
    assert len(seen) == asked


def test_too_few_solutions_are_an_error(folder, monkeypatch, capsys):
    with serving(said) as server:
        command(monkeypatch, folder, server.url, code=2, min_kept=0.7)
        out, err = capsys.readouterr()
        assert err == f"error: {folder / 'ask.jsonl'}: 60.0% of the examples are kept, " + (
            "70.0% are needed\n"
        )
        assert "kept 3 of 5 questions (60.0%)" in out and "dropped: form 1" in out
        assert len(rows_in(folder / "out" / "dropped.jsonl")) == 2
        assert not (folder / "out" / "traces.jsonl").exists()
        command(monkeypatch, folder, server.url, min_kept=0.6)
        assert (folder / "out" / "traces.jsonl").exists()


def test_what_is_too_long_is_dropped_and_never_cut(folder, monkeypatch, capsys):
    """The lengths by hand: bytes and digits of a tokenizer that has next to no words."""
    (folder / "tokenizer.model").write_bytes(tokenizer().proto)
    tokens = Tokenizer.load(folder / "tokenizer.model", "gemma3")

    def length(text):
        return len(tokens.encode(text, bos=False))

    targets = {  # with the end of the turn
        n: length(f"<reasoning>{n} * 2 = {2 * n}</reasoning><answer>{2 * n}</answer>") + 1
        for n in (4, 7, 50)
    }
    assert targets[4] < targets[7] < targets[50]
    rows = [{"question": f"What is {n} times 2?", "answer": str(2 * n)} for n in (4, 7, 50)]
    (folder / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # <bos>, the start, the end and the start of a turn are a token each.
    first, *_, last = (
        4 + length(f"user\n{row['question']}") + length("\n") + length("model\n") for row in rows
    )
    options = {
        "tokenizer": folder / "tokenizer.model", "template": "plain", "samples": 1,
        "min_kept": 0.3, "max_prompt": 999,
    }  # fmt: skip
    with serving(lambda prompt, seed: product(prompt.split("\n")[-1])) as server:
        for limit, kept in ((targets[50], 3), (targets[50] - 1, 2), (targets[4], 1)):
            command(monkeypatch, folder, server.url, **options, max_target=limit)
            traces = rows_in(folder / "out" / "traces.jsonl")
            assert [row["chosen"].count("</answer>") for row in traces] == [1] * kept
            dropped = rows_in(folder / "out" / "dropped.jsonl")
            assert [row["reason"] for row in dropped] == ["too long"] * (3 - kept)
        assert len(server.bodies) == 3 and first < last
        options |= {"out": folder / "other", "max_target": 999}
        for limit, asked in ((first - 1, 0), (last - 1, 2), (last, 3)):
            capsys.readouterr()
            options |= {"max_prompt": limit, "code": 0 if asked else 2, "min_kept": 0.1}
            command(monkeypatch, folder, server.url, **options)
            long = f"dropped: prompt too long {3 - asked}" in capsys.readouterr().out
            assert long == (asked < 3)
            assert len(server.bodies) == 3 + asked


def test_columns_and_forms(folder, monkeypatch):
    row = {"ask": "What is 4 times 2?", "gold": "8", "field": "sums"}
    (folder / "ask.jsonl").write_text(json.dumps(row) + "\n")
    with serving(said) as server:
        columns = "question=ask,answer=gold,domain=field"
        command(monkeypatch, folder, server.url, columns=columns)
        assert rows_in(folder / "out" / "traces.jsonl")[0]["domain"] == "sums"
        row = {"question": "What is 7 times 2?", "answer": "7*2 = <<7*2=14>>14\n#### 14"}
        (folder / "ask.jsonl").write_text(json.dumps(row) + "\n")
        command(monkeypatch, folder, server.url, source="gsm8k", out=folder / "gsm8k")
    (trace,) = rows_in(folder / "gsm8k" / "traces.jsonl")
    assert json.loads(trace["metadata_json"]) == {
        "checkpoints": ["7 * 2 = 14"], "final_answer": "14",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"url": None}, "--url, --policy: name one of them, a server's address or where a policy"),
        ({"policy": "p"}, "--url, --policy: name one of them"),
        ({"model": None}, "--model: its name at the server is needed"),
        ({"url": None, "policy": "p"}, "--model: is of --url, and has no meaning for --policy"),
        ({"ask": "as_trained"}, "--ask: is of --policy, and has no meaning for --url"),
        ({"top_k": 3}, "--top_k: is of --policy, and has no meaning for --url"),
        ({"ask": "nicely"}, "argument --ask: invalid choice: 'nicely'"),
        ({"top_p": 0}, "argument --top_p: invalid part value: '0'"),
        ({"checkpoints": -1}, "argument --checkpoints: invalid from_0 value: '-1'"),
        ({"seed": -1}, "argument --seed: invalid seed value: '-1'"),
        (
            {"url": None, "policy": "p", "model": None, "key": None, "temperature": 0},
            "--temperature=0: the 3 samples would be the same: --samples=1",
        ),
        (
            {"url": None, "policy": "none", "model": None, "key": None},
            "--policy=none: none: no such directory, and not a Hub repository `owner/name`",
        ),
        ({"batch": 0}, "argument --batch: invalid count value: '0'"),
        ({"min_kept": "nan"}, "argument --min_kept: invalid share value: 'nan'"),
        ({"backoff": "inf"}, "argument --backoff: invalid amount value: 'inf'"),
        ({"templat": "plain"}, "unrecognized arguments: --templat=plain"),
        ({"key": "NO_SUCH_KEY"}, "the server to ask: the environment variable of this name is not"),
        ({"url": "host"}, "the server to ask: is no URL of HTTP"),
        ({"questions": "none.jsonl"}, "none.jsonl: no such file"),
        ({"columns": "question"}, "columns: which one is the answer?"),
        ({"tokenizer": "none"}, "none: no such file"),
    ],
)
def test_flags_that_cannot_be(folder, monkeypatch, capsys, changes, wrong):
    flags = {"url": "http://127.0.0.1:1/v1", **changes}
    command(monkeypatch, folder, flags.pop("url"), code=2, **flags)
    err = capsys.readouterr().err
    assert err.startswith(f"error: {wrong}") and err.count("\n") == 1


def test_texts_of_any_characters_are_compared():
    assert normalised(" A\n\tB  ") == normalised("a b") != normalised("ab")
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(chr(draw.randrange(0x3000)) for _ in range(20))
        assert normalised(text) == normalised(f"  {text}\n")
