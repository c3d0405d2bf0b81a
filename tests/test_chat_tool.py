"""Talking to a policy: what it is asked, what is shown, and the vote."""

import io
import itertools
import json
import sys

import numpy as np
import pytest

from grpo.data.templates import TEMPLATES, conversation_ids, prompt_ids
from grpo.rollout.generate import Sampler, texts_of
from grpo.rollout.sampler import row_keys
from grpo.tools import chat
from models.loading import save_hf
from models.tokenizer import Tokenizer, train_tokenizer
from tests.tiny_run import policy_of, tokenizer

GREEDY = ("--temperature=0", "--max_new_tokens=12")
PLAIN = TEMPLATES["plain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy as it is exported."""
    return save_hf(policy_of(), tmp_path_factory.mktemp("chat") / "model")


def writer_of(folder, *words: str) -> chat.Writer:
    return chat.opened(chat.parser().parse_args([str(folder), *words]))


def talk(writer: chat.Writer, *questions: str) -> str:
    out = io.StringIO()
    chat.converse(writer, iter(questions), out)
    return out.getvalue()


def plainly(policy, ids, samples=1, turn=0, **sampling):
    """What the sampler writes for a prompt, as texts."""
    settings = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **sampling}
    rollout = Sampler(policy, [64]).sample(
        [ids], row_keys(0, "chat", turn, np.arange(samples)), sampling=settings, group=samples,
        max_new_tokens=12,
    )  # fmt: skip
    return texts_of(rollout, policy.own_tokenizer)


def test_the_reply_is_what_the_sampler_writes(folder):
    writer = writer_of(folder, *GREEDY)
    ids = prompt_ids(tokenizer(), {"question": "What is 1 and 2?"}, PLAIN)
    (want,) = plainly(policy_of(), ids)
    out = talk(writer, "What is 1 and 2?")
    assert out.removesuffix("\n").removesuffix(" [cut off after 12 tokens]") == chat.inert(want)
    drawn = writer_of(folder, "--max_new_tokens=12", "--temperature=0.8", "--top_k=7")
    (want,) = plainly(policy_of(), ids, temperature=0.8, top_k=7)
    assert talk(drawn, "What is 1 and 2?").startswith(chat.inert(want))


def test_a_second_turn_reads_the_first_and_new_begins_anew(folder, monkeypatch):
    asked = []
    written = iter(["so 3", "so 5", "so 7"])

    def reply(writer, messages, turn, out):
        asked.append(conversation_ids(writer.tokenizer, messages, writer.template))
        return next(written)

    monkeypatch.setattr(chat, "reply", reply)
    writer = writer_of(folder, "--template=s3")
    talk(writer, "1 and 2?", "and 4?", chat.NEW, "6?")
    first, second, third = (tokenizer().decode(ids) for ids in asked)
    instruction = TEMPLATES["s3"]["instruction"]
    assert f"user\n{instruction}\n\n1 and 2?<end_of_turn>" in first
    assert second.startswith(f"{first.removesuffix('model' + chr(10))}model\nso 3<end_of_turn>")
    assert second.endswith(f"{instruction}\n\nand 4?<end_of_turn>\n<start_of_turn>model\n")
    assert "1 and 2?" not in third and "so 3" not in third and "6?" in third


def test_what_cannot_be_said_is_an_error_and_the_conversation_goes_on(folder):
    writer = writer_of(folder, *GREEDY)
    out = io.StringIO()
    questions = iter(["lone \ud800", "word " * 2000, "What is 1 and 2?"])
    assert chat.converse(writer, questions, out) == 2
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("error: text has a lone surrogate")
    assert lines[1].startswith("error: ") and "/new begins anew" in lines[1]
    assert out.getvalue().endswith(talk(writer_of(folder, *GREEDY), "What is 1 and 2?"))


def shown(monkeypatch, folder, looks, *words) -> str:
    """What is shown of a stream of tokens."""
    monkeypatch.setattr(chat, "tokens_of", lambda *_: iter(looks))
    out = io.StringIO()
    chat.reply(writer_of(folder, "--max_new_tokens=50", *words), [], 0, out)
    return out.getvalue()


def test_characters_are_shown_whole_and_nothing_is_obeyed(folder, monkeypatch):
    ids = np.array(tokenizer().encode("a é 数!", bos=False))
    looks = [[ids[:n]] for n in range(1, len(ids) + 1)]
    assert len(ids) > 7  # bytes
    assert shown(monkeypatch, folder, looks) == "a é 数!\n"
    stopped = np.append(ids, tokenizer().end_of_turn_id)
    assert shown(monkeypatch, folder, [*looks, [stopped]]) == "a é 数!\n"
    assert shown(monkeypatch, folder, [[ids[:3]]]) == "a \ufffd\n"  # the end of what there is
    hostile = "x\x1b[31my\x1b]0;t\x07z\n\u202ea\rb\x00c\u2028d"
    ids = np.array(tokenizer().encode(hostile, bos=False))
    for cut in (1, 3, len(ids)):
        looks = [[ids[:n]] for n in range(cut, len(ids) + 1, cut)] + [[ids]]
        text = shown(monkeypatch, folder, looks)
        assert not set(text) & set("\x1b\x07\x00\r\u202e\u2028") and text.count("\n") == 2


def test_an_interrupt_ends_the_reply_alone(folder, monkeypatch):
    ids = np.array(tokenizer().encode("so 3", bos=False))

    def looks():
        yield [ids[:2]]
        raise KeyboardInterrupt

    try:
        said = shown(monkeypatch, folder, looks())
    except KeyboardInterrupt:  # which would end the tests as well
        pytest.fail("the interrupt went on")
    assert said.endswith(" [interrupted]\n")


def test_a_reply_that_is_cut_off_says_so(folder, monkeypatch):
    ids = np.full(50, tokenizer().encode("1", bos=False)[0])
    assert shown(monkeypatch, folder, [[ids]]).endswith(" [cut off after 50 tokens]\n")
    ids[-1] = tokenizer().end_of_turn_id
    assert "cut off" not in shown(monkeypatch, folder, [[ids]])


def test_the_vote():
    out = io.StringIO()
    texts = [f"<answer>{answer}</answer>" for answer in ("7", "72", "72.0", "7 pens", "72")]
    assert chat.voted([*texts, "none"], out) == texts[1]
    assert out.getvalue().split("\n") == [
        texts[1], "", "3 of 6: 72", "2 of 6: 7", "1 of 6: no answer", "",
    ]  # fmt: skip
    assert chat.voted(["<answer>8</answer>", "<answer>9</answer>"], io.StringIO()) == (
        "<answer>8</answer>"  # of equally many the first
    )
    out = io.StringIO()
    assert chat.voted(["none", "so"], out) == "none" and "2 of 2: no answer" in out.getvalue()


def test_samples_are_the_samplers_and_vote(folder):
    writer = writer_of(folder, "--samples=3", "--max_new_tokens=12")
    ids = prompt_ids(tokenizer(), {"question": "What is 1 and 2?"}, PLAIN)
    want = plainly(policy_of(), ids, samples=3, temperature=1.0)
    out, own = talk(writer, "What is 1 and 2?"), io.StringIO()
    chat.voted(want, own)
    assert out == own.getvalue() and len(set(want)) == 3


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self):
        return True


def test_questions():
    assert list(chat.questions_of(io.StringIO(" a\nb \n"), io.StringIO())) == ["a\nb"]
    assert list(chat.questions_of(io.StringIO(" \n"), io.StringIO())) == []
    out = io.StringIO()
    assert list(chat.questions_of(Terminal("a\n\n b \n"), out)) == ["a", "b"]
    assert out.getvalue() == "> > > > \n"


def test_buckets():
    assert [chat.bucket_of(n) for n in (1, 64, 65, 300)] == [64, 64, 128, 512]


def test_it_asks_as_the_export_says(folder, tmp_path):
    (tmp_path / "export.json").write_text(
        json.dumps({"template": {"instruction": "Count.", "model_line": "model"}})
    )
    assert chat.template_of(tmp_path) == {"instruction": "Count.", "model_line": "model"}
    assert chat.template_of(folder) == PLAIN
    for text in ("", "[]", "{", '{"template": {"instruction": 3, "model_line": "m"}}', "[" * 9999):
        (tmp_path / "export.json").write_text(text)
        with pytest.raises(chat.ChatError, match="name a --template"):
            chat.template_of(tmp_path)


def test_the_command(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chat", str(folder), *GREEDY])
    piped = io.TextIOWrapper(io.BytesIO(b"What is 1 and 2?\n"), "utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    with pytest.raises(SystemExit) as ended:
        chat.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == talk(writer_of(folder, *GREEDY), "What is 1 and 2?")
    for words, said in (
        (["/nowhere"], "/nowhere"),
        ([str(folder), "--temperature=-1"], "--temperature"),
        ([str(folder), "--template=none"], "--template"),
        ([str(folder), "--samples=2", "--temperature=0"], "samples would be the same"),
    ):
        monkeypatch.setattr(sys, "argv", ["chat", *words])
        with pytest.raises(SystemExit) as ended:
            chat.main()
        err = capsys.readouterr().err
        assert ended.value.code == 2 and said in err and err.count("\n") == 1


def test_without_bytes_a_tokenizer_still_streams():
    """Text is decoded from the first token on, so that spaces stay."""
    own = Tokenizer(train_tokenizer(["so one and two"] * 4, 300), "gemma3")
    ids = own.encode("so one and two", bos=False)
    texts = [own.decode(ids[:n]) for n in range(len(ids) + 1)]
    assert all(b.startswith(a) for a, b in itertools.pairwise(texts))
