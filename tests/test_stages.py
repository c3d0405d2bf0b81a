"""Whole stages: references, adapters that go on, groups that are left out, tokens learnt."""

import io

import jax
import numpy as np
import pytest

import grpo.stages.grpo
import grpo.stages.sft
from grpo.data.order import example_at
from grpo.rewards.batch import each
from grpo.rewards.table import REWARDS
from grpo.rollout.generate import Sampler, texts_of
from tests.helpers import assert_trees_equal
from tests.small_run import (
    REWARD,
    C,
    G,
    P,
    assert_same_run,
    final,
    launch,
    newest,
    noise,
    opened,
    rows,
    small,
    small_grpo,
    small_sft,
    stop_at,
    trimmed,
    watched,
)


def adapters():
    """All parameters, then a fresh adapter, the same one again, and another one."""
    run = small()
    run.stages.sft, run.pipeline = small_sft(), ("sft", "fresh", "same", "other")
    for name in ("fresh", "same", "other"):
        stage = run.stages[name] = small_grpo()
        stage.update(iterations=2, evaluate_every=0)
        stage.lora.update(rank=3 if name == "other" else 2, alpha=4.0, targets="q|v")
        stage.reference = "base" if name == "other" else "start"
    return run


@pytest.fixture(scope="module")
def adapted(folder):
    assert launch(adapters(), folder / "adapted") == 0
    return folder / "adapted"


@pytest.fixture(scope="module")
def policies(adapted):
    return opened(adapters(), adapted, io.StringIO())[1]


def test_stages_with_adapters_go_on_bit_by_bit(folder, adapted):
    workdir = folder / "adapted and stopped"
    for event, stage, step in [("fresh update 1", "fresh", 1), ("train 0", "same", 0)]:
        with watched(stop_at(event)):
            assert launch(adapters(), workdir) == 75
        assert newest(workdir, stage)[0] == step
    assert launch(adapters(), workdir) == 0
    assert_same_run(adapted, workdir)


def test_the_policy_starts_at_its_reference(adapted):
    """With an adapter that is fresh, and with one that goes on."""
    kl = {(row["stage"], row["iteration"]): row["kl"] for row in rows(adapted, "metrics")[3:]}
    assert kl["fresh", 0] < 1e-12 and kl["same", 0] < 1e-12
    assert kl["fresh", 1] > 1e-8 and kl["same", 1] > 1e-8
    assert kl["other", 0] > 1e-3  # held to the base, which it has left in the stages before


def test_references(policies):
    fresh, same, other = (
        policies.reference(name, policies.start(name)).variables
        for name in ("fresh", "same", "other")
    )
    assert fresh.keys() == {"params"}
    assert_trees_equal(fresh["params"], policies.end("sft").params)
    assert_trees_equal(same["lora"], policies.end("fresh").adapter)
    assert_trees_equal(other["params"], policies.base.params)
    with pytest.raises(AssertionError):
        assert_trees_equal(fresh["params"], policies.base.params)


def test_another_adapter_starts_from_the_merged_one(policies):
    start, before = policies.start("other"), policies.end("same")
    assert_trees_equal(start.params, before.merged().params)
    with pytest.raises(AssertionError):
        assert_trees_equal(start.params, before.params)
    assert (before.lora.rank, start.lora.rank) == (2, 3)
    assert_trees_equal(before.params, policies.end("sft").params)  # frozen through both stages


def test_stages_on_a_mesh(folder):
    """Adapters that are merged and begun, stopped and gone on with, on 2 x 2 devices."""
    config = adapters()
    config.mesh.update(fsdp=2, tp=2)
    config.stages.sft.steps = 1
    for name in ("fresh", "other"):
        config.stages[name].iterations = 1
    config.pipeline = ("sft", "fresh", "other")
    with watched(stop_at("fresh update 1")):
        assert launch(config, folder / "mesh") == 75
    assert launch(config, folder / "mesh") == 0
    _, policies = opened(config, folder / "mesh", io.StringIO())
    start, end = policies.start("other"), policies.end("other")
    for leaf in (start.params["embedder"]["table"], start.params["layers"]["mlp"]["up"]["w"]):
        assert leaf.addressable_shards[0].data.size == leaf.size // 4
    assert max(float(np.abs(b).max()) for b in jax.tree.leaves(end.adapter)) > 0
    alone = adapters()
    alone.stages.sft.steps = 1
    for name in ("fresh", "other"):
        alone.stages[name].iterations = 1
    alone.pipeline = config.pipeline
    assert launch(alone, folder / "alone") == 0
    for ours, theirs in zip(
        rows(folder / "mesh", "metrics"), rows(folder / "alone", "metrics"), strict=True
    ):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-4)


def groups(mode: str, rounds: int = 1):
    """GRPO alone, two iterations of two updates."""
    run = small()
    run.stages.grpo, run.pipeline = small_grpo(), ("grpo",)
    run.stages.grpo.update(iterations=2, minibatches=2, evaluate_every=0)
    run.stages.grpo.update(dynamic_sampling=mode, max_rounds=rounds)
    return run


def flat(example, completion: str) -> float:
    """A reward that cannot tell the completions of two problems in three apart."""
    return noise(example, completion) if int(example["id"].rsplit("-", 1)[-1]) % 3 == 0 else 0.5


def launched(config, workdir, reward):
    """What was sampled, and what was learnt from."""
    got, batches = [], []
    sample, minibatch = Sampler.sample, grpo.stages.grpo.minibatch

    def seen_sample(self, *words, **named):
        got.append(sample(self, *words, **named))
        return got[-1]

    def seen_minibatch(*words, **named):
        batches.append(minibatch(*words, **named))
        return batches[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARDS, REWARD, each(reward))
        patch.setattr(Sampler, "sample", seen_sample)
        patch.setattr(grpo.stages.grpo, "minibatch", seen_minibatch)
        assert launch(config, workdir) == 0
    return got, batches


def learnt(batches) -> set[bytes]:
    """The rows of some batches that have a token to learn from."""
    return {
        np.asarray(ids).tobytes()
        for batch in batches
        for ids, mask in zip(batch.ids_BT, batch.completion_mask_BC, strict=True)
        if np.any(mask)
    }


def sampled(got) -> list[bytes]:
    return [np.asarray(ids, np.int32).tobytes() for part in got for ids in part.ids_BT]


def in_order(config, workdir, count: int) -> list[str]:
    """The first examples of a run's order, each as often as it is completed."""
    run, _ = opened(config, workdir, io.StringIO())
    train = run.datasets["data"].train
    return [train[example_at(0, n // G, len(train))]["id"] for n in range(count * G)]


def test_the_tokens_that_were_sampled_are_learnt(folder):
    """And the table tells of all of them."""
    got, batches = launched(groups("off"), folder / "off", noise)
    assert len(got) == 2 and len(batches) == 4
    assert learnt(batches[:2]) == set(sampled(got[:1]))
    assert learnt(batches[2:]) == set(sampled(got[1:]))
    tokenizer = opened(groups("off"), folder / "off", io.StringIO())[1].base.own_tokenizer
    texts = [text for part in got for text in texts_of(part, tokenizer)]
    again = [tokenizer.encode(text, bos=False) for text in texts]
    own = [np.asarray(ids).tolist() for part in got for ids in part.completion_ids_BC]
    assert again != own  # the texts do not say which tokens they were
    written = rows(folder / "off", "rollouts")
    for iteration in range(2):
        mine = [row for row in written if row["iteration"] == iteration]
        news, rest = (
            row for row in rows(folder / "off", "metrics") if row["iteration"] == iteration
        )
        assert news["reward/mean"] == pytest.approx(np.mean([row["total"] for row in mine]))
        assert news["length/mean"] == pytest.approx(np.mean([row["tokens"] for row in mine]))
        # By the policy as it stands: not yet another one, up to rounding.
        assert news["gap/max"] < 1e-4 and news["ratio/max"] == pytest.approx(1.0, abs=1e-4)
        assert "reward/mean" not in rest  # sampled once, told once
    assert [row["id"] for row in written] == in_order(groups("off"), folder / "off", 2 * P)


def test_dropped_groups_have_no_tokens(folder):
    got, batches = launched(groups("drop"), folder / "drop", flat)
    written = rows(folder / "drop", "rollouts")
    spread = [row["advantage"] != 0 for row in written]
    assert 0 < sum(spread) < len(spread) == 2 * P * G
    wanted = {ids for ids, used in zip(sampled(got), spread, strict=True) if used}
    assert learnt(batches) == wanted
    assert newest(folder / "drop", "grpo")[1]["taken"] == 2 * P


def test_refill_takes_new_prompts_from_the_order(folder):
    config, workdir = groups("refill", 3), folder / "refill"
    got, batches = launched(config, workdir, flat)
    written = rows(workdir, "rollouts")
    taken = newest(workdir, "grpo")[1]["taken"]
    assert taken == len(got) * P and 2 * P < taken <= 2 * 3 * P
    assert [row["id"] for row in written] == in_order(config, workdir, taken)
    spread = [row["advantage"] != 0 for row in written]
    wanted = [ids for ids, used in zip(sampled(got), spread, strict=True) if used]
    assert learnt(batches) <= set(wanted)
    full = [np.asarray(batch.completion_mask_BC).any(axis=1).sum() for batch in batches]
    count = [
        sum(row["advantage"] != 0 for row in written if row["iteration"] == n) for n in range(2)
    ]
    assert [full[0] + full[1], full[2] + full[3]] == [min(n, P * G) for n in count]

    with watched(stop_at("train 1", 2)), pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARDS, REWARD, each(flat))
        assert launch(config, folder / "refill and stop") == 75
        assert newest(folder / "refill and stop", "grpo")[1]["iteration"] == 1
        assert launch(config, folder / "refill and stop") == 0
    assert_same_run(workdir, folder / "refill and stop")


def test_refill_ends_after_its_rounds(folder):
    """A reward that tells nothing apart costs `max_rounds`, and moves nothing."""
    got, batches = launched(groups("refill", 3), folder / "never", lambda example, text: 0.5)
    assert len(got) == 2 * 3
    assert learnt(batches) == set()
    assert [row["loss"] for row in rows(folder / "never", "metrics")] == [0.0] * 4
    assert trimmed(final(folder / "never", "grpo"))["extra"]["cursor"]["taken"] == 2 * 3 * P
    _, policies = opened(groups("refill", 3), folder / "never", io.StringIO())
    assert_trees_equal(policies.end("grpo").params, policies.base.params)
    assert all(part.completion_ids_BC.shape == (P * G, C) for part in got)


def test_an_update_is_compiled_once_and_not_again_where_a_run_goes_on(folder):
    """Fresh, updated and restored states have one signature; a fresh adapter on trained weights."""
    config, workdir = adapters(), folder / "once"
    config.pipeline = ("sft", "fresh")
    config.stages.sft.optimizer.learning_rate = 3e-2  # programs that no other test has compiled
    config.stages.fresh.optimizer.learning_rate = 3e-2
    with watched(stop_at("fresh update 1")):
        assert launch(config, workdir) == 75
    assert launch(config, workdir) == 0
    run, policies = opened(config, workdir, io.StringIO())
    for module, stage in ((grpo.stages.sft, "sft"), (grpo.stages.grpo, "fresh")):
        programs = module.build(run.config, stage, policies.start(stage))
        assert programs["update"].function._cache_size() == 1
