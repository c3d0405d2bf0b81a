"""The display, as exact strings: in a terminal, in a log, with hostile texts and broken streams."""

import io
import re

import numpy as np
import pytest

from grpo.reporting import progress as display
from grpo.reporting.progress import Progress, table
from grpo.reporting.text import cut, duration, number, pace, printable

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07text", "text"),
    ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x9b2Jgone", "gone"),
    ("\x1bPq#0\x1b\\sixel", "sixel"),
    ("\x1b]0;without end", "]0;without end"),
    ("\x1bcreset\x1b", "creset"),
    ("a\rb\x08\x08c\x7f\x00\x9d", "a bc"),
    ("a\nb\tc\u2028d\x0be\x85f\x1cg", "a b c d e f g"),
    ("abc\u202edef\u2066\u200f\ufeff", "abcdef"),
    ("\ud800|\uffff|", "\ufffd|\ufffd|"),
    ("Zoë 数 👩\u200d💻", "Zoë 数 👩\u200d💻"),
    ("\x1b\x1b[[2J", "2J"),
]


@pytest.fixture
def clock():
    """A clock that stands still until it is set."""
    times = [0.0]

    def now():
        return times[0]

    now.set = lambda value: times.__setitem__(0, value)
    return now


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def columns(monkeypatch):
    """Sets how wide the terminal is."""
    monkeypatch.setenv("TERM", "xterm")
    return lambda count: monkeypatch.setenv("COLUMNS", str(count))


def said(stream):
    """What a stream was sent since the last time."""
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text


def test_a_log(clock):
    stream = io.StringIO()
    progress = Progress(stream, every_s=10, clock=clock)
    progress.update("grpo", 1, 120, {"reward": 0.4301, "right": "41%", "groups": 8})
    assert said(stream) == "grpo    1/120  reward 0.43  right 41%  groups 8\n"
    clock.set(5)
    progress.update("grpo", 2, 120, {"reward": 0.5})
    assert said(stream) == ""  # too early
    clock.set(10)
    progress.update("grpo", 3, 120, {"reward": 0.5})
    assert said(stream) == "grpo    3/120  reward 0.5  5.0 s/it  9:45 left\n"
    progress.say("best so far\nof all")
    assert said(stream) == "best so far\nof all\n"
    clock.set(11)
    progress.update("grpo", 120, 120, {})
    assert said(stream) == "grpo  120/120  51 ms/it\n"
    progress.close()
    assert said(stream) == ""


def test_a_log_that_ends_early_has_the_last_line(clock):
    stream = io.StringIO()
    progress = Progress(stream, every_s=10, clock=clock)
    progress.update("sft", 1, 9, {})
    progress.update("sft", 2, 9, {"loss": 1.0})
    progress.close()
    progress.close()
    assert said(stream) == "sft  1/9\nsft  2/9  loss 1\n"


def test_a_terminal(clock, columns):
    columns(80)
    stream = Terminal()
    progress = Progress(stream, every_s=10, clock=clock)
    progress.update("grpo", 0, 4, {})
    assert said(stream) == "\rgrpo  0/4  ────────────────────\x1b[K"
    clock.set(60)  # it compiles
    progress.update("grpo", 1, 4, {"reward": 0.25})
    assert said(stream) == "\rgrpo  1/4  ━━━━━───────────────  reward 0.25\x1b[K"
    clock.set(62)
    progress.update("grpo", 2, 4, {"reward": 0.5})
    assert said(stream) == (
        "\rgrpo  2/4  ━━━━━━━━━━──────────  reward 0.5  2.0 s/it  0:04 left\x1b[K"
    )
    progress.say("a text\nof two lines")
    assert said(stream) == (
        "\r\x1b[Ka text\nof two lines\n"
        "grpo  2/4  ━━━━━━━━━━──────────  reward 0.5  2.0 s/it  0:04 left"
    )
    clock.set(66)
    progress.update("grpo", 4, 4, {})
    assert said(stream) == "\rgrpo  4/4  ━━━━━━━━━━━━━━━━━━━━  2.0 s/it\x1b[K\n"
    progress.say("done")
    assert said(stream) == "\r\x1b[Kdone\n"
    progress.close()
    assert said(stream) == ""


def test_a_line_that_stands_there_is_ended(clock, columns):
    columns(80)
    stream = Terminal()
    progress = Progress(stream, every_s=10, clock=clock)
    progress.update("grpo", 1, 40, {})
    said(stream)
    progress.close()
    progress.close()
    assert said(stream) == "\n"


def test_half_cells():
    bars = [display.bar(done, 40, "━╾─") for done in (0, 1, 2, 21, 39, 40, 99)]
    assert bars == [
        "────────────────────",
        "╾───────────────────",
        "━───────────────────",
        "━━━━━━━━━━╾─────────",
        "━━━━━━━━━━━━━━━━━━━╾",
        "━━━━━━━━━━━━━━━━━━━━",
        "━━━━━━━━━━━━━━━━━━━━",
    ]
    assert display.bar(0, 0, "━╾─") == "─" * 20


def lines_at(clock, first, seconds):
    """The lines of a log of one line per iteration, started at `first`."""
    stream = io.StringIO()
    progress = Progress(stream, every_s=0, clock=clock)
    for done, second in enumerate(seconds, start=first):
        clock.set(second)
        progress.update("grpo", done, 120, {})
    return said(stream).splitlines()


def test_a_resumed_stage_has_the_pace_of_what_it_did_itself(clock):
    assert lines_at(clock, 37, [1000, 1300, 1302, 1304]) == [
        "grpo   37/120",
        "grpo   38/120",
        "grpo   39/120  2.0 s/it  2:42 left",
        "grpo   40/120  2.0 s/it  2:40 left",
    ]


def test_stages_may_take_turns(clock):
    stream = io.StringIO()
    progress = Progress(stream, every_s=60, clock=clock)
    steps = [("grpo", 0, 9), ("grpo", 1, 9), ("eval", 1, 2), ("eval", 2, 2), ("grpo", 2, 9)]
    for second, (stage, done, total) in enumerate([*steps, ("eval", 1, 2), ("eval", 2, 2)]):
        clock.set(second)
        progress.update(stage, done, total, {})
    # Each round of the evaluation is a stage of its own; the time it takes is one of training.
    assert said(stream) == "grpo  0/9\neval  1/2\neval  2/2\neval  1/2\neval  2/2\n"
    clock.set(100)
    progress.update("grpo", 3, 9, {})
    assert said(stream) == "grpo  3/9  50 s/it  4:57 left\n"


@pytest.mark.parametrize("columns_count", [*range(1, 140), 500])
def test_the_width_is_never_reached(clock, columns, columns_count):
    columns(columns_count)
    stream = Terminal()
    progress = Progress(stream, every_s=0, clock=clock)
    for second, done in enumerate([7, 8, 9]):
        clock.set(second)
        facts = {"reward": 0.123456, "text": "数学" * 9, "accents": "e\u0301" * 9, "kl": 1e-9}
        progress.update("grpo", done, 1200, facts)
        line = re.fullmatch("\r(.*)\x1b\\[K", said(stream))
        assert line
        assert len(line[1]) + len(re.findall("[数学]", line[1])) < columns_count


def test_what_does_not_fit_goes_from_the_last_fact_on(clock, columns):
    stream = Terminal()
    progress = Progress(stream, every_s=0, clock=clock)
    columns(80)
    for second, done in enumerate([1, 2, 3]):
        clock.set(second)
        progress.update("grpo", done, 9, {})
    said(stream)
    shown = []
    for count in (200, 66, 65, 56, 55, 46, 45, 33, 24, 14):
        columns(count)
        progress.update("grpo", 3, 9, {"first": "1", "second": "2"})
        shown.append(said(stream)[1:-3])
    bar = "━━━━━━╾─────────────"
    assert shown == [
        f"grpo  3/9  {bar}  first 1  second 2  1.0 s/it  0:06 left",
        f"grpo  3/9  {bar}  first 1  1.0 s/it  0:06 left",
        f"grpo  3/9  {bar}  first 1  1.0 s/it  0:06 left",
        f"grpo  3/9  {bar}  1.0 s/it  0:06 left",
        f"grpo  3/9  {bar}  1.0 s/it  0:06 left",
        "grpo  3/9  1.0 s/it  0:06 left",
        "grpo  3/9  1.0 s/it  0:06 left",
        "grpo  3/9  1.0 s/it  0:06 left",
        "grpo  3/9  1.0 s/it ...",
        "grpo  3/9 ...",
    ]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE])
@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_hostile_texts_cannot_move_the_cursor(clock, columns, kind, text):
    columns(200)
    stream = kind()
    progress = Progress(stream, every_s=0, clock=clock)
    progress.say(text)
    progress.update(text, 1, 2, {text: text})
    progress.say(text)
    progress.close()
    sent = stream.getvalue()
    ours = re.sub("\r|\x1b\\[K", "", sent) if kind is Terminal else sent
    assert re.fullmatch("[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]*", ours)


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_every_character_in_every_stream(clock, columns, kind):
    columns(80)
    for encoding in ("ascii", "latin-1", "cp437", "utf-8"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
        stream.isatty = kind().isatty
        progress = Progress(stream, every_s=0, clock=clock)
        progress.update("grpo", 3, 8, {"ë": "数"})
        progress.say("数")
        sent = raw.getvalue().decode(encoding)
        assert ("\\u6570\n" in sent) == (encoding != "utf-8")
        if kind is Terminal:
            bar = "━━━━━━━╾────────────" if encoding == "utf-8" else "#######-------------"
            assert f"\rgrpo  3/8  {bar}  " in sent


def test_a_dumb_terminal_is_a_log(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Progress(stream, every_s=0, clock=clock).update("grpo", 1, 2, {})
    assert said(stream) == "grpo  1/2\n"


def test_a_stream_that_fails_ends_nothing(clock):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    broken, closed = Broken(), io.StringIO()
    shown = [Progress(stream, every_s=0, clock=clock) for stream in (broken, closed)]
    closed.close()
    for progress in shown:
        progress.update("grpo", 1, 2, {})
        progress.say("text")
        progress.close()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.43, "0.43"),
        (0.43512, "0.435"),
        (-12.345, "-12.3"),
        (999.4, "999"),
        (999.6, "1000"),
        (123456.7, "123457"),
        (1.5e7, "1.5e+07"),
        (5e-6, "5e-06"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1234567, "1234567"),
        (np.float32(0.1), "0.1"),
        (np.int32(7), "7"),
        (np.array(0.25), "0.25"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_times():
    assert [duration(s) for s in (0, 0.4, 47, 59.7, 61, 3599.6, 90061)] == [
        "0:00", "0:00", "0:47", "1:00", "1:01", "1:00:00", "25:01:01",
    ]  # fmt: skip
    assert [pace(s) for s in (0.0123, 0.4, 1, 9.94, 12.3, 125)] == [
        "12 ms/it", "400 ms/it", "1.0 s/it", "9.9 s/it", "12 s/it", "125 s/it",
    ]  # fmt: skip


def test_cut():
    assert [cut("abcdef", n) for n in (6, 5, 3, 1, 0, -1)] == [
        "abcdef",
        "ab...",
        "...",
        ".",
        "",
        "",
    ]
    assert cut("数数数", 5) == "数..."
    assert cut("数数数", 4) == "..."


def test_table():
    assert table(["run", "reward", "n"], [["GRPO", "0.43", "120"], ["数", "-1.5", "7"]]) == (
        "| run  | reward |   n |\n"
        "|:-----|-------:|----:|\n"
        "| GRPO |   0.43 | 120 |\n"
        "| 数   |   -1.5 |   7 |"
    )


def test_a_table_of_one_column_and_one_without_rows():
    assert table(["a"], [["b"]]) == "| a   |\n|:----|\n| b   |"
    assert table(["a", "b"], []) == "| a   |   b |\n|:----|----:|"


def test_pipes_and_line_breaks_end_no_cell():
    assert table(["a|b"], [["c\nd"], ["\\|"], ["\x1b[1me"]]) == (
        "| a\\|b |\n|:-----|\n| c d  |\n| \\\\\\| |\n| e    |"
    )


def test_rows_of_another_length():
    with pytest.raises(ValueError, match="shorter"):
        table(["a", "b"], [["c"]])
