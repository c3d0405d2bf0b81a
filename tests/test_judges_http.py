"""Servers that misbehave: what each fault becomes, exact counts, deadlines, secrets."""

import asyncio
import concurrent.futures
import json
import logging
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import time
import traceback

import pytest

from grpo.judges import http
from grpo.judges.asking import Question, Reply, metrics_of, question
from grpo.judges.completion import refusal, text_in
from grpo.judges.http import asker
from grpo.judges.replay import recorded
from grpo.judges.server import Limits, ServerError, about_key, about_url, server_of
from grpo.judges.waiting import seconds_of, wait_of
from tests.clock import by_the_clock
from tests.misbehaving import completion, serving

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = {"model": "m", "temperature": 0.5, "max_tokens": 9, "seed": 3, "response_format": None}
LIMITS = Limits(
    concurrency=4, item_seconds=60.0, batch_seconds=120.0, attempts=3,
    backoff=0.02, longest_wait=0.04, max_bytes=100_000,
)  # fmt: skip
SLACK = 0.5  # seconds by which a deadline may be overrun
CANARY = "sk-canaryCanary0123456789"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,name.invalid")


@pytest.fixture
def server():
    with serving() as running:
        yield running


def questions_of(prompts):
    return [question(prompt, SETTINGS) for prompt in prompts]


def told(server, *prompts, key=None, settings=SETTINGS, **limits) -> list[Reply]:
    ask = asker(server.url, key_variable=key, settings=settings, limits=LIMITS._replace(**limits))
    return ask(questions_of(prompts))


def timed(url, *prompts, **limits):
    """The replies, and the seconds of the batch alone."""
    ask = asker(url, key_variable=None, settings=SETTINGS, limits=LIMITS._replace(**limits))
    questions, start = questions_of(prompts), time.monotonic()
    return ask(questions), time.monotonic() - start


def test_what_is_sent(server):
    form = {"type": "json_object"}
    (reply,) = told(server, "naïve \ud800\x00", settings={**SETTINGS, "response_format": form})
    assert reply.reason and reply.reason.startswith("not_unicode: ")  # the server says it again
    assert server.bodies == [
        {
            "model": "m", "temperature": 0.5, "max_tokens": 9, "seed": 3, "response_format": form,
            "messages": [{"role": "user", "content": "naïve \ud800\x00"}],
        }
    ]  # fmt: skip
    assert "authorization" not in server.headers[0]
    assert server.headers[0]["accept-encoding"] == "identity"
    assert told(server, "q") == [Reply(text="q/3", attempts=1)]
    assert "response_format" not in server.bodies[1]


def test_a_url_may_end_in_a_slash_and_no_question_is_no_request(server):
    ask = asker(server.url + "/", key_variable=None, settings=SETTINGS, limits=LIMITS)
    assert ask([]) == []
    assert ask(questions_of(["q"])) == [Reply(text="q/3", attempts=1)]


FAILS = {  # what the server does -> the reason, and how often it was asked
    "400": ("http_400: Bad Request 'FAULT is no model here'", 1),
    "403": ("http_403: Forbidden 'FAULT is no model here'", 1),
    "404": ("http_404: Not Found 'FAULT is no model here'", 1),
    "422": ("http_422: Unprocessable ", 1),
    "599": ("http_599: no known status ", 3),
    "408": ("http_408: Request Timeout ", 3),
    "409": ("http_409: Conflict ", 3),
    "425": ("http_425: Too Early ", 3),
    "429": ("http_429: Too Many Requests ", 3),
    "500": ("http_500: Internal Server Error ", 3),
    "redirect": ("http_307: Temporary Redirect", 1),
    "reset": ("connection: ReadError", 3),
    "half": ("connection: RemoteProtocolError", 3),
    "huge": ("too_large: more than 100000 bytes", 1),
    "html": ("html: ", 1),
    "gzip": ("not_json: ", 1),
    "cut": ("not_json: ", 1),
    "nested": ("too_large: ", 1),
    "digits": ("not_json: ", 1),
    "error": ("no_choice: ", 1),
    "no_choices": ("no_choice: ", 1),
    "list": ("no_choice: ", 1),
    "no_message": ("no_choice: ", 1),
    "null": ("empty: ", 1),
    "parts": ("empty: ", 1),
    "blank": ("empty: ", 1),
    "refusal": ("refused: ", 1),
    "filtered": ("refused: ", 1),
    "surrogate": ("not_unicode: ", 1),
}


@pytest.mark.parametrize("fault", FAILS)
def test_a_fault_is_a_reason_and_no_number(server, fault):
    reason, attempts = FAILS[fault]
    (reply,) = told(server, f"f{fault}: {fault}")
    assert reply.text is None and reply.score is None and reply.reason
    assert reply.reason.startswith(reason.replace("FAULT", f"f{fault}")), reply.reason
    assert (reply.attempts, sum(server.asked.values())) == (attempts, attempts)


@pytest.mark.parametrize("fault", ["500", "429", "408", "reset", "half"])
def test_what_passes_is_asked_again(server, fault):
    assert told(server, f"q: {fault}, {fault}, ok") == [Reply(text="q/3", attempts=3)]


def test_a_text_that_was_cut_off_is_a_text(server):
    assert told(server, "q: length") == [Reply(text="cut", attempts=1)]


def test_nobody_is_there():
    with serving() as gone:
        pass
    (reply,) = told(gone, "q")
    assert (reply.reason, reply.attempts) == ("connection: ConnectError", 3)


def test_counts_by_hand(server, tmp_path):
    ask = asker(server.url, key_variable=None, settings=SETTINGS, limits=LIMITS)
    ask = recorded(ask, tmp_path / "replies.jsonl", again=False)
    ask(questions_of(["old", "bad: html"]))
    prompts = [
        "a", "b: 500, ok", "c: 429, 500, ok", "d: 503", "e: html", "f: reset, refusal", "a",
        "old", "bad: html", "g: 404",
    ]  # fmt: skip
    assert metrics_of(ask(questions_of(prompts))) == {
        "questions": 10,
        "cached": 3,  # the second a, old, bad
        "asked": 7,
        "retried": 1 + 2 + 2 + 1,  # b, c, d, f
        "answered": 5,  # a twice, b, c, old
        "failed": 5,  # d, e, f, bad, g
        "failed/html": 2,
        "failed/http_404": 1,
        "failed/http_503": 1,
        "failed/refused": 1,
    }
    assert sum(server.asked.values()) == 2 + 7 + 6


@by_the_clock
def test_a_server_says_how_long_to_wait(server):
    assert told(server, "q: 429/0.3, 503/0.2, ok") == [Reply(text="q/3", attempts=3)]
    first, second = (b - a for a, b in zip(server.times, server.times[1:], strict=False))
    assert 0.3 <= first < 0.3 + SLACK and 0.2 <= second < 0.2 + SLACK


@by_the_clock
def test_a_server_says_until_when_to_wait(server):
    """A date has whole seconds, so it is up to one from now."""
    assert told(server, "q: 429/date, ok") == [Reply(text="q/3", attempts=2)]
    (waited,) = (b - a for a, b in zip(server.times, server.times[1:], strict=False))
    assert waited < 1 + SLACK


@by_the_clock
def test_no_wait_outlasts_a_deadline(server):
    for limit in ("item_seconds", "batch_seconds"):
        prompt = f"{limit}: 429/100, ok"
        limits = {"item_seconds": 999.0, "batch_seconds": 999.0, limit: 2.0}
        (reply,), seconds = timed(server.url, prompt, **limits)
        assert reply.reason and reply.reason.startswith("http_429: Too Many Requests ")
        assert reply.reason.endswith("; a wait of 100.0 s would be too long")
        assert reply.attempts == 1 and seconds < SLACK


@pytest.mark.parametrize("fault", ["hang", "drip", "slow_headers"])
@by_the_clock
def test_a_question_has_its_time(server, fault):
    (reply, other), seconds = timed(server.url, f"slow: {fault}", "other", item_seconds=0.3)
    assert reply == Reply(reason="deadline: took more than 0.3 s", attempts=1)
    assert other == Reply(text="other/3", attempts=1)
    assert 0.3 <= seconds < 0.3 + SLACK


@pytest.mark.parametrize("fault", ["hang", "drip", "slow_headers"])
@by_the_clock
def test_a_batch_has_its_time(server, fault):
    prompts = ("a", f"b: {fault}", "c", f"d: {fault}", "e")
    replies, seconds = timed(server.url, *prompts, concurrency=1, batch_seconds=0.4)
    late = "deadline: the batch took more than 0.4 s"
    assert replies[:2] == [Reply(text="a/3", attempts=1), Reply(reason=late, attempts=1)]
    assert replies[2:] == [Reply(reason=late, attempts=0)] * 3
    assert 0.4 <= seconds < 0.4 + SLACK and sum(server.asked.values()) == 2


@by_the_clock
def test_a_question_that_waits_for_its_place_has_all_of_its_time(server):
    replies = told(server, "a: hang", "b: hang", "c", concurrency=1, item_seconds=0.2)
    late = Reply(reason="deadline: took more than 0.2 s", attempts=1)
    assert replies == [late, late, Reply(text="c/3", attempts=1)]


@by_the_clock
def test_all_attempts_share_the_time_of_a_question(server):
    (reply,), seconds = timed(server.url, "a: 500/0.45, 500/0.45, hang", item_seconds=1.2)
    assert reply == Reply(reason="deadline: took more than 1.2 s", attempts=3)
    assert seconds < 1.2 + SLACK


@by_the_clock
def test_names_that_are_not_found_in_time(server, monkeypatch):
    """The lookup goes on in a thread of its own; nobody waits for it."""

    def slow(*args, **kwargs):
        time.sleep(1.2)
        raise socket.gaierror

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", slow)
        replies, seconds = timed("http://name.invalid/v1", "q", batch_seconds=0.2)
    assert replies == [Reply(reason="deadline: the batch took more than 0.2 s", attempts=1)]
    assert seconds < 0.2 + SLACK


@pytest.mark.parametrize("status", ["401", "402", "403"])
def test_a_key_that_is_not_taken_ends_the_batch(server, status):
    first, *rest = told(server, f"a: {status}", *(f"q{n}" for n in range(9)), concurrency=1)
    assert first.reason and first.reason.startswith(f"http_{status}: ") and first.attempts == 1
    said = f"not_asked: the batch has ended with {first.reason}"
    assert rest == [Reply(reason=said, attempts=0)] * 9
    assert sum(server.asked.values()) == 1
    assert told(server, "next") == [Reply(text="next/3", attempts=1)]


@by_the_clock
def test_what_waits_to_be_asked_again_is_not_when_the_batch_has_ended(server):
    waiting, ended = told(server, "a: 500/0.4, ok", "b: 402")
    assert waiting.reason and waiting.reason.startswith("http_500: ") and waiting.attempts == 1
    assert ended.reason and ended.reason.startswith("http_402: Payment Required")


@pytest.mark.parametrize("bound", [1, 3])
def test_never_more_at_a_time_than_may_be(server, bound):
    server.meeting = bound
    prompts = [f"q{n}: {'busy' if n % 3 else '500, busy'}" for n in range(9)]
    replies = told(server, *prompts, concurrency=bound)
    assert [reply.text for reply in replies] == [f"q{n}/3" for n in range(9)]
    assert server.most == bound


def test_of_a_reply_no_more_is_read_than_may_be(server):
    size = len(completion("q/3"))
    assert told(server, "q", max_bytes=size) == [Reply(text="q/3", attempts=1)]
    (reply,) = told(server, "q", max_bytes=size - 1)
    assert reply.reason == f"too_large: more than {size - 1} bytes"


def test_a_redirect_is_not_followed(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    told(server, "q: redirect", key="JUDGE_KEY")
    assert server.asked == {"q: redirect": 1}


def test_in_a_thread_beside_others(server):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda name: told(server, name), ("a", "b")))
    assert replies == [[Reply(text="a/3", attempts=1)], [Reply(text="b/3", attempts=1)]]


def test_whoever_interrupts_leaves_nothing_running():
    ended = []

    async def other():
        try:
            await asyncio.sleep(9)
        finally:
            ended.append(True)

    async def work():
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        raise KeyboardInterrupt(task)

    with pytest.raises(KeyboardInterrupt):
        http.run(work())
    assert ended == [True]


def test_an_error_of_our_own_is_no_reply(server):
    with pytest.raises(TypeError, match="not JSON serializable"):
        told(server, "q", settings={"model": object()})


def test_waits():
    key = question("q", SETTINGS).key
    bounds = {1: 0.5, 2: 1.0, 3: 2.0, 4: 3.0, 5: 3.0, 5000: 3.0}
    drawn = {
        n: [
            wait_of(f"{key}{i}", n, base=0.5, longest=3.0, retry_after=0.0) for i in range(100)
        ]
        for n in bounds
    }  # fmt: skip
    for n, bound in bounds.items():
        assert 0 <= min(drawn[n]) < 0.1 * bound and 0.9 * bound < max(drawn[n]) <= bound
        assert len(set(drawn[n])) == 100
        assert abs(sum(drawn[n]) / 100 - bound / 2) < 0.1 * bound
    assert drawn[4] != drawn[5]  # each attempt has a draw of its own
    one = wait_of(key, 1, base=0.5, longest=3.0, retry_after=0.0)
    assert one == wait_of(key, 1, base=0.5, longest=3.0, retry_after=0.0)
    assert wait_of(key, 1, base=0.5, longest=3.0, retry_after=7.0) == 7.0
    assert wait_of(key, 1, base=0.5, longest=3.0, retry_after=one / 2) == one


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0), ("", 0.0), ("3", 3.0), (" 1.5 ", 1.5), ("-3", 0.0), ("soon", 0.0),
        ("1e3", 0.0), ("٣", 0.0), ("nan", 0.0), ("inf", 0.0), ("9" * 5000, 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 29.0),  # the clock below stands half a minute before 2000
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("Fri, 31 Dec 1999 24:59:59 +0100", 0.0),
        ("Fri, 31 Feb 1999 23:00:00 GMT", 0.0), ("Sat, 01 Jan 2000 01:00:10 +0100", 40.0),
    ],
)  # fmt: skip
def test_what_is_read_of_a_retry_after(header, seconds):
    assert seconds_of(header, 946684770.0) == seconds


@pytest.mark.parametrize("url", ["https://host/v1", "http://127.0.0.1:8000", "https://h:1/a/b/"])
def test_a_good_url(url):
    assert about_url(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"https://user:{CANARY}@host/v1", "has a user or password in it"),
        (f"https://{CANARY}@host/v1", "has a user or password in it"),
        (f"https://user:{CANARY}@[host/v1", "is no URL"),
        (f"user:{CANARY}@host/v1", "has a user or password in it"),
        (f"https://host/v1?key={CANARY}", "has a ? or # in it"),
        (f"https://host/v1#{CANARY}", "has a ? or # in it"),
        (f"https://host/{CANARY} ", "is no URL"),
        (f"https://host/{CANARY}\n", "is no URL"),
        (f"https://ho\u202est/{CANARY}", "is no URL"),
        (f"ftp://host/{CANARY}", "is no URL"),
        (f"https:///{CANARY}", "is no URL"),
        (f"https://host:99999/{CANARY}", "is no URL"),
        (f"host/{CANARY}", "is no URL"),
        ("", "is no URL"),
    ],
)
def test_a_url_that_is_refused_and_not_repeated(url, said):
    wrong = about_url(url)
    assert wrong and wrong.startswith(said) and "\n" not in wrong and "anary" not in wrong
    with pytest.raises(ServerError, match=r"^the server to ask: ") as caught:
        server_of(url, None, LIMITS)
    assert "anary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (None, "", None),
        ("JUDGE_KEY", CANARY, None),
        ("JUDGE_KEY", "", "is not set"),
        ("JUDGE_KEY", CANARY + "\n", "holds what is no key"),
        ("JUDGE_KEY", CANARY + "é", "holds what is no key"),
        (CANARY, "", "never a key"),
        (CANARY.replace("-", "_"), "", "is not set"),
        ("", "", "never a key"),
    ],
)
def test_the_variable_of_a_key(variable, value, said, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", value)
    wrong = about_key(variable)
    assert wrong is said is None or (said and wrong and said in wrong)
    assert "anary" not in str(wrong)


def test_a_key_is_seen_by_its_server_only(server, monkeypatch, tmp_path, caplog, capfd):
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    with caplog.at_level(logging.DEBUG):
        path = tmp_path / "replies.jsonl"
        faults = [fault for fault in FAILS if fault != "403"]  # which would end the batch
        replies = []
        for fault, seconds in ((None, 60.0), ("hang", 0.3), ("401", 60.0)):
            limits = LIMITS._replace(item_seconds=seconds)
            ask = asker(server.url, key_variable="JUDGE_KEY", settings=SETTINGS, limits=limits)
            ask = recorded(ask, path, again=False)
            replies += ask(questions_of(f"q: {word}" for word in ([fault] if fault else faults)))
            print(ask, replies, server_of(server.url, "JUDGE_KEY", limits))
    assert replies[-1].reason == "http_401: Unauthorized" and "HTTP Request" in caplog.text
    assert all(reply.attempts for reply in replies) and len(replies) == len(faults) + 2
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    out, err = capfd.readouterr()
    for text in (caplog.text, out, err, path.read_text()):
        assert "anary" not in text
    assert "Server(...)" in out and len(path.read_text().splitlines()) == len(replies)
    assert set(os.listdir(tmp_path)) == {path.name}


def test_a_servers_message_is_quoted_without_the_key():
    def said(message, key):
        return refusal(404, json.dumps({"error": {"message": message}}).encode(), key)

    assert said("no model 'x'\n\x1b[2J\u202e", None) == (
        "http_404: Not Found \"no model 'x' \\x1b[2J\\u202e\""
    )
    assert said("wrong key sk-abcdefgh", "sk-abcdefgh") == "http_404: Not Found"
    assert said("wrong key bcdefg...", "sk-abcdefgh") == "http_404: Not Found"  # six of it
    assert said("wrong key ***defgh", "sk-abcdefgh") == "http_404: Not Found 'wrong key ***defgh'"
    assert said("not x", "x") == "http_404: Not Found"
    assert len(said("long" * 1000, None)) < 200
    for body in (b"", b"[]", b"\xff", b'{"error":3}', b'{"error":{"message":[]}}', b"[" * 99999):
        assert refusal(500, body, None) == "http_500: Internal Server Error"
    assert refusal(500, b'{"message":"m"}', None) == "http_500: Internal Server Error 'm'"
    assert refusal(500, b'{"error":"e"}', None) == "http_500: Internal Server Error 'e'"


def test_bodies_cut_anywhere_are_reasons():
    body = completion("four")
    assert text_in(body) == ("four", "")
    for end in range(len(body)):
        text, reason = text_in(body[:end])
        assert text is None and reason.startswith("not_json: ")


def test_bodies_of_any_bytes_are_reasons():
    draw = random.Random(0)
    body = bytearray(completion("four"))
    for _ in range(2000):
        damaged = bytearray(body)
        damaged[draw.randrange(len(body))] = draw.randrange(256)
        text, reason = text_in(bytes(damaged))
        assert (text is None) == bool(reason)
        assert not reason or re.match(r"[a-z_]+: ", reason)


def test_no_accelerator_is_touched_to_ask():
    code = "import sys, grpo.judges.http, grpo.judges.replay;sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_key_is_of_the_prompt_and_of_who_is_asked():
    one = question("q", SETTINGS)
    assert one == Question("q", question("q", dict(reversed(SETTINGS.items()))).key)
    assert re.fullmatch("[0-9a-f]{64}", one.key)
    others = [
        question("q ", SETTINGS),
        question("q\ud800", SETTINGS),
        *(question("q", {**SETTINGS, name: "other"}) for name in SETTINGS),
    ]
    assert len({one.key, *(other.key for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"text": "a", "reason": "b"}, {"score": 1.0, "reason": "b"}, {"reason": ""},
        {"score": float("nan")}, {"score": float("inf"), "text": "a"},
    ],
)  # fmt: skip
def test_a_reply_is_either_or(fields):
    with pytest.raises(ValueError, match="reply"):
        Reply(**fields, attempts=1)
