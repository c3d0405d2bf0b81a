"""A policy as a teacher: its own solutions, the key of each draw, whole commands, stopped."""

import collections
import dataclasses
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.data.templates import TEMPLATES, prompt_ids
from grpo.judges.asking import question
from grpo.judges.teacher import MOST, PROMPT, equations_of, own_trace_of
from grpo.rewards.checkpoints import checkpoints_equations, checkpoints_substring
from grpo.rollout.generate import Sampler
from grpo.runs import policy_teacher
from grpo.runs.policy_teacher import answered, asked_by, digest, policy_samples
from models.chat import encode_chat
from models.loading import save_hf
from models.lora import LoraConfig, init_adapter
from models.tokenizer import Tokenizer, train_tokenizer
from tests.test_teach import rows_in, run
from tests.tiny_run import params, policy_of, size, tokenizer

EXAMPLE = {"id": "a:1", "question": "What is 4 times 2, less 3?", "answer": "5"}
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def solved(reasoning="4 * 2 = 8, then 8 - 3 = 5.", answer="5"):
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


def test_a_policys_own_solution_by_hand():
    assert own_trace_of(EXAMPLE, f" {solved()}\n", least=2) == {
        "domain": "math",
        "prompt": "What is 4 times 2, less 3?",
        "chosen": solved(),
        "metadata_json": '{"checkpoints": ["4 * 2 = 8", "8 - 3 = 5"], "final_answer": "5"}',
    }
    row = own_trace_of({**EXAMPLE, "domain": "sums"}, solved("so it is", "$5.00"), least=0)
    assert isinstance(row, dict) and row["domain"] == "sums"
    assert json.loads(row["metadata_json"]) == {"checkpoints": [], "final_answer": "5"}


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "form"),
        ("5", "form"),
        (solved() + " Done.", "form"),
        (solved() + "<checkpoints>\n4 * 2 = 8\n</checkpoints>", "form"),
        (solved().removesuffix("</answer>"), "form"),
        (solved() * 2, "form"),
        (solved(" "), "form"),
        ("<reasoning>" * 90_000, "form"),
        ("\ud800\x00\u202e", "form"),
        (solved(answer="8"), "wrong"),
        (solved(answer="5 or 8"), "wrong"),
        (solved(answer="9" * 50_000), "wrong"),
        (solved("It is 5."), "checkpoints"),
        (solved("4 * 2 = 9, 8 - 3 = 6"), "checkpoints"),  # neither holds
        (solved("4 * 2 = 8 and once more 4 * 2 = 8"), "checkpoints"),  # two are needed
        (solved("; ".join(f"{n} + 1 = {n + 1}" for n in range(MOST + 1))), "checkpoints"),
        (solved("\ud800 1 + 1 =" * 5_000), "checkpoints"),
    ],
)
def test_why_it_is_not_kept(completion, reason):
    start = time.process_time()
    assert own_trace_of(EXAMPLE, completion, least=2) == reason
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("reasoning", "kept"),
    [
        ("8-3=5\n4*2=8", ["8-3=5", "4*2=8"]),
        ("4 boxes × 2 = $8.", ["4 boxes × 2 = $8"]),
        ("(4*2 = 8) so 8 - 3 = 6", ["4*2 = 8"]),
        ("4*2 = 6+2 = 8", ["4*2 = 6+2", "6+2 = 8"]),
        ("- 4*2=8, 4*2=8 and 4 * 2=8", ["4*2=8", "4 * 2=8"]),
        ("5 = 5, x = 5", []),
        ("", []),
    ],
)
def test_checkpoints_are_the_equations_that_hold(reasoning, kept):
    assert equations_of(reasoning) == kept


def test_who_is_paid_for_them_can_earn_them_all():
    """The rewards of S11 pay a solution in full for what was made of it."""
    draw = np.random.RandomState(0)
    for _ in range(100):
        a, b, c = draw.randint(2, 99, 3)
        sign = draw.choice(["*", "×", "x", "·"])
        lines = [f"{a} cards {sign} {b} = {a * b}", f"({a * b} + {c} = ${a * b + c})"]
        lines += [f"{c}/{b} = {c / b:.2f}", f"{a}+{a} = 2*{a} = {2 * a}."]
        draw.shuffle(lines)
        text = solved("\n".join(lines))
        row = own_trace_of({**EXAMPLE, "answer": "5"}, text, least=5)
        assert isinstance(row, dict)
        example = {**EXAMPLE, "checkpoints": json.loads(row["metadata_json"])["checkpoints"]}
        assert checkpoints_substring(example, text) == pytest.approx(1.0)  # five times 0.2
        options = {"match": "equation", "wrong": 0.1, "cap": 0.3, "without": None}
        assert checkpoints_equations(example, text, **options, strict=True) == 1.0


# From here on models.
ASKED = {
    "template": TEMPLATES["plain"], "sampling": SAMPLING, "max_new_tokens": 6, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def sampler():
    return Sampler(policy_of(), (48,))


def test_a_reply_is_the_same_whatever_is_asked_beside_it(sampler):
    asked = [question(f"What is {n} and 1?", ASKED) for n in range(9)]
    together = [reply.text for reply in answered(sampler, ASKED, 4, asked)]
    assert len(set(together)) > 6
    backwards = [reply.text for reply in answered(sampler, ASKED, 4, asked[::-1])]
    assert backwards == together[::-1]
    assert [answered(sampler, ASKED, 4, [one])[0].text for one in asked] == together
    again = [question(f"What is {n} and 1?", {**ASKED, "seed": 4}) for n in range(9)]
    other = [reply.text for reply in answered(sampler, {**ASKED, "seed": 4}, 4, again)]
    assert sum(a != b for a, b in zip(together, other, strict=True)) > 6


def test_equal_prompts_are_drawn_apart_by_their_keys(sampler):
    asked = [question("What is 1 and 1?", {"n": n}) for n in range(8)]
    assert len({reply.text for reply in answered(sampler, ASKED, 4, asked)}) > 5


def test_a_digest_is_of_all_that_words_follow_from():
    policy, lora = policy_of(), LoraConfig(rank=2, alpha=2.0)
    adapter = init_adapter(lora, policy.params, policy_teacher.jax.random.key(0))
    moved = {**params(), "embedder": {"table": params()["embedder"]["table"].at[0, 0].add(1e-3)}}
    texts = Tokenizer(train_tokenizer(["Another one, 12345"], 300), "gemma3")
    changes = {
        "weights": {"params": moved},
        "tokenizer": {"tokenizer": texts},
        "dtype": {"dtype": "bfloat16"},
        "sizes": {"config": dataclasses.replace(size(), global_theta=2 * size().global_theta)},
        "adapter": {"lora": lora, "adapter": adapter},
        "scale": {"lora": LoraConfig(rank=2, alpha=4.0), "adapter": adapter},
    }
    found = [digest(policy_of(**change)) for change in changes.values()]
    assert len({digest(policy), *found}) == 1 + len(changes)
    copied = {**params(), "embedder": {"table": jnp.array(params()["embedder"]["table"])}}
    assert digest(policy_of(params=copied)) == digest(policy)


def test_a_recording_is_of_who_was_asked_and_how(tmp_path):
    fields = {
        "template": TEMPLATES["plain"], "sampling": SAMPLING, "max_new_tokens": 4, "seed": 0,
        "samples": 2, "bucket": 48, "batch": 2,
    }  # fmt: skip
    changes = [
        {}, {"template": TEMPLATES["s3"]}, {"sampling": {**SAMPLING, "top_k": 3}},
        {"max_new_tokens": 5}, {"seed": 5},
    ]  # fmt: skip
    keys = [
        question("What?", sample.asked).key
        for change in changes
        for sample in policy_samples(policy_of(), tmp_path / "r", **{**fields, **change})
    ]
    assert len(set(keys)) == len(keys) == 10
    same = policy_samples(policy_of(), tmp_path / "r", **{**fields, "bucket": 64, "batch": 5})
    assert [question("What?", sample.asked).key for sample in same] == keys[:2]


# From here on whole commands. What the policy says is drawn, and then replaced.
ROWS = [
    {"question": f"{ask} {n} times 2?", "answer": str(2 * n)}
    for ask, n in [("What is", 4), ("What is", 5), ("What is", 6), ("What is", 7), ("What is", 8),
                   ("How much are", 4), ("What is", 9)]
]  # fmt: skip
WRITTEN = {  # by the number in a question
    6: "I think it is 12.",
    7: solved("It is 14", "14"),
    8: solved("8*2=16" + " yes" * 30, "16"),
    9: "<reasoning>\ud800\x00" * 3_000,
}


def said(prompt, seed):
    """Right at once, or at the third time; or never what is wanted."""
    n = int(prompt.split()[-3])
    if n in WRITTEN:
        return WRITTEN[n]
    return solved(f"{n}*2={2 * n}", "11" if n == 5 and seed < 9 else str(2 * n))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_hf(policy_of(), tmp_path_factory.mktemp("model") / "hf")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


@pytest.fixture
def heard(monkeypatch):
    """What was drawn: (question, seed) of each; and what is said in its place."""
    completed, asked_now = policy_teacher.completed, []

    def instead(sampler, asked, batch, questions):
        assert batch == 3 and len(list(completed(sampler, asked, batch, questions))) <= 3
        for one in questions:
            asked_now.append((one.prompt, asked["seed"]))
            yield said(one.prompt, asked["seed"])

    monkeypatch.setattr(policy_teacher, "completed", instead)
    return asked_now


def command(monkeypatch, folder, model, code=0, **changes):
    flags = {
        "questions": folder / "ask.jsonl", "out": folder / "out", "policy": model,
        "ask": "as_trained", "template": "plain", "seed": 7, "samples": 3, "batch": 3,
        "max_tokens": 4, "max_prompt": 60, "max_target": 90, "min_kept": 0.2, **changes,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return run(monkeypatch, words, code)


def files_of(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_whole_command(folder, monkeypatch, capsys, model, heard):
    command(monkeypatch, folder, model)
    first = [row["question"] for row in ROWS]
    left = [first[n] for n in (1, 2, 3, 4, 5, 6)]
    assert heard == [(one, seed) for seed, asked in ((7, first), (8, left), (9, left))
                     for one in asked]  # fmt: skip
    assert rows_in(folder / "out" / "traces.jsonl") == [
        {
            "domain": "math",
            "prompt": f"What is {n} times 2?",
            "chosen": solved(f"{n}*2={2 * n}", str(2 * n)),
            "metadata_json": f'{{"checkpoints": ["{n}*2={2 * n}"], "final_answer": "{2 * n}"}}',
        }
        for n in (4, 5)
    ]
    assert rows_in(folder / "out" / "dropped.jsonl") == [
        {"id": f"ask:{n}", "reason": reason}
        for n, reason in [(3, "form"), (4, "checkpoints"), (5, "too long"), (6, "repeated"),
                          (7, "form")]
    ]  # fmt: skip
    out = capsys.readouterr().out.splitlines()
    assert out[out.index("kept 2 of 7 questions (28.6%)") + 1 :] == [
        "kept: math 2", "dropped: checkpoints 1", "dropped: form 2", "dropped: repeated 1",
        "dropped: too long 1", "teacher: answered 19", "teacher: asked 19", "teacher: cached 0",
        "teacher: failed 0", "teacher: questions 19", "teacher: retried 0",
    ]  # fmt: skip
    before, count = files_of(folder / "out"), len(heard)
    command(monkeypatch, folder, model)
    assert files_of(folder / "out") == before and len(heard) == count
    assert "teacher: asked 0" in capsys.readouterr().out
    command(monkeypatch, folder, model, checkpoints=0, out=folder / "other")
    kept = [row["prompt"] for row in rows_in(folder / "other" / "traces.jsonl")]
    assert kept == [first[0], first[1], first[3]]


@pytest.mark.parametrize("torn", [0, 1, 25])
def test_killed_and_started_again(folder, monkeypatch, model, heard, torn):
    """In a batch that is not answered, and while the rows of the one before are written."""
    command(monkeypatch, folder, model)
    whole, all_of_them = files_of(folder / "out"), [*heard]
    heard.clear()
    instead = policy_teacher.completed

    def killed(sampler, asked, batch, questions):
        if len(heard) == 10:
            raise KeyboardInterrupt
        return instead(sampler, asked, batch, questions)

    with monkeypatch.context() as patch:
        patch.setattr(policy_teacher, "completed", killed)
        with pytest.raises(KeyboardInterrupt):
            command(monkeypatch, folder, model, out=folder / "cut")
    replies = folder / "cut" / "replies.jsonl"
    assert [*files_of(folder / "cut")] == ["replies.jsonl"] and len(rows_in(replies)) == 10
    data = replies.read_bytes()
    replies.write_bytes(data[: len(data) - torn])
    heard[:] = heard[: 10 if torn == 0 else 9]
    command(monkeypatch, folder, model, out=folder / "cut")
    assert files_of(folder / "cut") == whole
    assert heard == all_of_them  # each once, but for what was torn


def test_it_is_told_how_to_answer(folder, monkeypatch, model):
    """In the chat template, with prompts as long as the longest that fits."""
    seen, sample = [], Sampler.sample

    def watched(self, prompts, key_B, **named):
        seen.append((self._buckets, prompts, named))
        return sample(self, prompts, key_B, **named)

    monkeypatch.setattr(Sampler, "sample", watched)
    fields = {"ask": "instructed", "samples": 1, "top_k": 5, "temperature": 0.5}
    command(monkeypatch, folder, model, code=2, **fields)  # none has the form
    prompts = [
        encode_chat(tokenizer(), [{"role": "user", "content": PROMPT + row["question"]}])
        for row in ROWS
    ]
    filled = [*prompts, prompts[-1], prompts[-1]]
    assert [prompt for _, part, _ in seen for prompt in part] == filled
    bucket = -(-max(map(len, prompts)) // 32) * 32
    named = {"sampling": {**SAMPLING, "temperature": 0.5, "top_k": 5}, "group": 1,
             "max_new_tokens": 4}  # fmt: skip
    assert [(buckets, rest) for buckets, _, rest in seen] == [((bucket,), named)] * 3
    # Which prompt is too long is told by the template that is learnt.
    lengths = [len(prompt_ids(tokenizer(), row, TEMPLATES["plain"])) for row in ROWS]
    assert len(set(lengths)) == 2 and max(lengths) < 60
    seen.clear()
    command(monkeypatch, folder, model, code=2, **fields, max_prompt=max(lengths) - 1)
    assert seen == []  # all that are left are in the recording
    dropped = collections.Counter(
        row["reason"] for row in rows_in(folder / "out" / "dropped.jsonl")
    )
    assert dropped == {"form": 6, "prompt too long": 1}
    command(monkeypatch, folder, model, code=2, max_prompt=1, out=folder / "none")
    assert [*files_of(folder / "none")] == ["dropped.jsonl"]


def test_the_template_it_is_asked_in():
    assert asked_by("as_trained", TEMPLATES["s3"]) is TEMPLATES["s3"]
    assert asked_by("instructed", TEMPLATES["s3"]) is TEMPLATES["plain"]


def test_a_policy_without_a_tokenizer(folder, monkeypatch, capsys, tmp_path):
    path = save_hf(policy_of(tokenizer=None), tmp_path / "bare")
    command(monkeypatch, folder, path, code=2)
    assert capsys.readouterr().err == f"error: --policy={path}: this policy has no tokenizer\n"
