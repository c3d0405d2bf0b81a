"""What Tunix 0.1.7 does that this code does not inherit: each shown on Tunix, then on ours.

The table is in docs/tunix.md. When one of these fails on Tunix's side, Tunix has mended it: take it
out of the table.
"""

import warnings
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import advantages, overlong_penalty
from grpo.algorithms.kl import KL
from grpo.algorithms.presets import PRESETS
from grpo.rollout.sampler import rollout, row_keys
from grpo.training.logprobs import Logprobs
from models.config import SIZES
from models.gemma import Gemma
from tests.references import tunix_layout, tunix_losses, tunix_models, tunix_rollout
from tests.references.tunix_rollout import NEVER, NEW, PROMPT, STOPS, TEMPERATURE
from tests.test_tunix_losses import leaf_gaps, ours
from tests.test_tunix_rollout import GREEDY, UNSTOPPED, fixture, scored
from tests.test_tunix_rollout import ours as our_rollout

pytest.importorskip("tunix", reason="Tunix is not installed: pip install -e '.[test,parity]'")
# Tunix and what it stands on warn as they please.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

NAME = "gemma3_small"
DRAWN = GREEDY._replace(temperature=TEMPERATURE)


def vanilla_rollout():
    """Tunix's rollout worker as its learner uses it, and a config of its rollouts."""
    from tunix.rl.rollout import base_rollout
    from tunix.rl.rollout.vanilla_rollout import VanillaRollout

    model, _ = tunix_models.build(NAME)
    case = tunix_models.ARCHITECTURES[NAME]
    cache = base_rollout.CacheConfig(
        cache_size=PROMPT + NEW,
        num_layers=case["num_layers"],
        num_kv_heads=case["num_kv_heads"],
        head_dim=case["head_dim"],
    )

    def config(**changes):
        return base_rollout.RolloutConfig(
            max_tokens_to_generate=NEW,
            max_prompt_length=PROMPT,
            **{"temperature": TEMPERATURE, "eos_tokens": [NEVER], **changes},
        )

    return VanillaRollout(model, tunix_models.IntTokenizer(), cache), config


def test_the_default_kl_restrains_nothing():
    from tunix.rl import common
    from tunix.rl.grpo.grpo_learner import GRPOConfig

    random = np.random.RandomState(0)
    logits_V, ref_V = (jnp.asarray(random.standard_normal(7), jnp.float32) for _ in range(2))
    ref_V = jax.nn.log_softmax(ref_V)

    def expected(kl):
        """The gradient that on-policy samples have on average, by enumeration."""
        p_V = jax.nn.softmax(logits_V)
        return jax.grad(lambda z_V: jnp.sum(p_V * kl(jax.nn.log_softmax(z_V), ref_V)))(logits_V)

    def exact(z_V):
        logp_V = jax.nn.log_softmax(z_V)
        return jnp.sum(jnp.exp(logp_V) * (logp_V - ref_V))

    def cosine(a, b):
        return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))

    exact_V = jax.grad(exact)(logits_V)
    mode = GRPOConfig().kl_loss_mode
    theirs_V = expected(lambda logp, ref: common.compute_kl_divergence(logp, ref, mode))
    mine_V = expected(KL[PRESETS["grpo"].kl])
    print(
        f"default KL: Tunix {mode!r}, norm of its expected gradient "
        f"{jnp.linalg.norm(theirs_V):.1e} (exact {jnp.linalg.norm(exact_V):.2f}); "
        f"ours {PRESETS['grpo'].kl!r}, cosine {cosine(mine_V, exact_V):.2f}"
    )
    assert jnp.linalg.norm(theirs_V) < 1e-6 < jnp.linalg.norm(exact_V)
    assert cosine(mine_V, exact_V) > 0.5
    np.testing.assert_allclose(mine_V, jax.nn.softmax(logits_V) - jnp.exp(ref_V), atol=1e-6)


def test_every_rollout_draws_the_same():
    worker, config = vanilla_rollout()
    texts = list(tunix_rollout.texts())
    for seed in (None, 3):
        first, second = (worker.generate(texts, config(seed=seed)).tokens for _ in range(2))
        np.testing.assert_array_equal(np.stack(first), np.stack(second))
    # A batch in two microbatches: the same prompt in each draws the same completions.
    halves = [worker.generate(texts[:1] * 2, config()).tokens for _ in range(2)]
    np.testing.assert_array_equal(np.stack(halves[0]), np.stack(halves[1]))

    def key_data(step, rows):
        return np.asarray(jax.random.key_data(row_keys(0, "train", step, rows)))

    keys = np.concatenate([key_data(step, jnp.arange(4)) for step in range(3)])
    assert len(np.unique(keys, axis=0)) == len(keys)
    np.testing.assert_array_equal(key_data(1, jnp.arange(2, 4)), key_data(1, jnp.arange(4))[2:])


def test_the_stop_token_is_cut_off_and_never_trained():
    worker, config = vanilla_rollout()
    texts = list(tunix_rollout.texts())
    got = worker.generate(texts, config(temperature=0.0, top_p=None, eos_tokens=STOPS[NAME]))
    assert not any(np.isin(row, STOPS[NAME]).any() for row in got.tokens)
    lengths_B = np.array([len(row) for row in got.tokens])
    stopped_B = lengths_B < NEW
    assert stopped_B.any()
    mine = our_rollout(NAME, GREEDY, STOPS[NAME])
    np.testing.assert_array_equal(mine.completion_mask_BC.sum(axis=1), lengths_B + stopped_B)
    print(f"stop tokens in the masks of {stopped_B.sum()} stopped rows: Tunix 0, ours all")


def test_a_drawn_token_0_is_taken_for_padding():
    mine = our_rollout(NAME, DRAWN, UNSTOPPED)
    ids_BC = np.asarray(mine.completion_ids_BC)
    zero_B = np.any(ids_BC == 0, axis=1)
    assert zero_B.any()
    gap = np.abs(mine.sample_logprob_BC - scored(NAME, ids_BC, TEMPERATURE)).max()
    _, model = tunix_rollout.make_sampler(NAME)
    got = tunix_rollout.teacher_forced(model, ids_BC, TEMPERATURE)
    theirs = np.abs(mine.sample_logprob_BC - got)[zero_B].max()
    # Tunix disagrees with its own sampler as well.
    sampler, _ = tunix_rollout.make_sampler(NAME)
    drawn = sampler(
        tunix_rollout.texts(), NEW, PROMPT,
        eos_tokens=[NEVER], temperature=TEMPERATURE, top_p=1.0, seed=7, return_logprobs=True,
    )  # fmt: skip
    tokens = np.stack(drawn.tokens)
    assert (tokens == 0).any()
    forced = tunix_rollout.teacher_forced(model, tokens, TEMPERATURE)
    own = np.abs(np.float32(drawn.logprobs) - forced).max()
    print(f"|log-prob drawn - trained| with a token 0: Tunix {own:.2f}, ours {gap:.1e}")
    assert gap <= 1e-5 and min(theirs, own) > 0.1


def test_old_logprobs_ignore_the_temperature():
    worker, _ = vanilla_rollout()
    ids, _ = tunix_rollout.prompts()
    completions = fixture()[f"{NAME}/sampled"]
    old = worker.get_per_token_logps(jnp.asarray(ids), jnp.asarray(completions))
    now = tunix_rollout.teacher_forced(worker.model(), completions, TEMPERATURE)  # as the loss does
    theirs = np.exp(now - np.asarray(old))
    mine = np.exp(scored(NAME, completions, TEMPERATURE) - now)
    print(
        f"first ratio of a second epoch: Tunix {theirs.min():.3f} to {theirs.max():.3f}, "
        f"ours within {np.abs(mine - 1).max():.0e} of 1"
    )
    assert theirs.max() > 1.05 and theirs.min() < 0.95
    assert np.abs(mine - 1).max() <= 1e-5


def test_changed_stop_tokens_are_ignored():
    drawn = []

    def watched():
        sampler, _ = tunix_rollout.make_sampler(NAME)
        decode = sampler._compiled_decode_fn

        def count(*arguments):
            state = decode(*arguments)
            drawn.append(int(state.decoding_step) - PROMPT + 1)
            return state

        sampler._compiled_decode_fn = count
        return sampler

    first = tuple(
        int(token) for token in fixture()[f"{NAME}/greedy"][:, 0]
    )  # end every row at once
    never, sampler = (NEVER,) * len(first), watched()
    for tunix, stops in ((sampler, never), (sampler, first), (watched(), first)):
        tunix(tunix_rollout.texts(), NEW, PROMPT, eos_tokens=list(stops))
    assert drawn[0] == drawn[1] > NEW and drawn[2] == 1
    lengths = [
        our_rollout(NAME, GREEDY, stops).completion_mask_BC.sum(1) for stops in (never, first)
    ]
    np.testing.assert_array_equal(lengths, [[NEW] * len(first), [1] * len(first)])
    print(f"tokens drawn once the stop tokens have changed: Tunix {drawn[1]}, ours 1")


def test_a_temperature_recompiles():
    sampler, _ = tunix_rollout.make_sampler(NAME)
    programs = []
    for temperature in (0.7, 0.8, 0.9):
        drawing = {"temperature": temperature, "top_p": 1.0, "eos_tokens": [NEVER]}
        sampler(tunix_rollout.texts(), 2, PROMPT, **drawing)
        our_rollout(NAME, GREEDY._replace(temperature=temperature), UNSTOPPED)
        programs.append(cast(Any, rollout)._cache_size())
    theirs, mine = sampler._compiled_decode_fn._cache_size(), 1 + programs[-1] - programs[0]
    print(f"programs for three temperatures: Tunix {theirs}, ours {mine}")
    assert (theirs, mine) == (3, 1)


def test_microbatches_change_the_gradient():
    import optax

    name, cuts = "token", ((0, 2), (2, 4), (4, 6))
    arrays, whole = tunix_losses.run_case(name)
    # Tunix's trainer accumulates with MultiSteps, which averages.
    steps = optax.MultiSteps(optax.sgd(-1.0), len(cuts))
    state = steps.init(whole)
    for cut in cuts:
        update, state = steps.update(tunix_losses.run_case(name, *cut)[1], state)
    theirs = max(leaf_gaps(update, whole).values())
    logprob = arrays["logprob"].tobytes()
    parts = [ours(name, logprob, *cut)[2] for cut in cuts]
    added = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    mine = max(leaf_gaps(added, ours(name, logprob)[2]).values())
    print(f"gradient, three microbatches against one: Tunix {theirs:.2f}, ours {mine:.0e}")
    assert theirs > 0.1 and mine <= 1e-5


def test_gemma_2_with_left_padding_sees_another_window():
    from flax import nnx
    from tunix.rl import common

    name, padding = "gemma2_kv2", 3  # window 8
    model, shapes = tunix_models.build(name)
    ids, _ = tunix_models.rows(name)
    row = ids[:1]
    padded = np.concatenate([np.zeros((1, padding), np.int32), row], axis=1)

    def tunix(ids, prompt):
        return np.asarray(
            common.compute_per_token_logps(
                *nnx.split(model),
                prompt_tokens=jnp.asarray(ids[:, :prompt]),
                completion_tokens=jnp.asarray(ids[:, prompt:]),
                pad_id=0,
                eos_id=1,
            )
        )

    weights = tunix_models.draw(shapes, 0, tunix_models.SCALE[name])
    variables = {"params": tunix_layout.params_of(name, weights)}
    scorer = Logprobs(
        module=Gemma(tunix_layout.config_of(name)), temperature=1.0, with_entropy=False
    )

    def mine(ids):
        return np.asarray(scorer(variables, ids, (ids != 0).astype(np.int32), 18)[0])

    theirs = np.abs(tunix(padded, 10 + padding) - tunix(row, 10)).max()
    own = np.abs(mine(padded) - mine(row)).max()
    print(f"log-probs with {padding} paddings and without: Tunix {theirs:.2f}, ours {own:.0e}")
    assert theirs > 0.1 and own < 1e-2 * theirs


def test_gemma_2_9b_is_twice_as_wide():
    from tunix.models.gemma import model as tunix2

    assert tunix2.ModelConfig.gemma2_9b().hidden_dim == 2 * SIZES["gemma2_9b"].ffn_width == 28672


def test_a_reward_that_abstains_counts_as_0():
    from tunix.rl import algo_core, reward_manager
    from tunix.rl.grpo.grpo_learner import GRPOConfig

    def reward(prompts, completions, **_):
        return [1.0, 0.5, float("nan"), 0.9]

    manager = reward_manager.SequenceRewardManager([reward], GRPOConfig(num_generations=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = manager(["?"] * 4, ["!"] * 4)["rewards"]
    theirs = algo_core.compute_advantages(got, 4)
    spread = {"baseline": "group", "scale": "group", "eps": 1e-6}
    mine = np.asarray(advantages(jnp.array([[1.0, 0.5, jnp.nan, 0.9]]), **spread))[0]
    alone = np.asarray(advantages(jnp.array([[1.0, 0.5, 0.9]]), **spread))[0]
    print(f"advantage of the one that abstains: Tunix {theirs[2]:.2f}, ours {mine[2]:.0f}")
    assert got[2] == 0 and theirs[2] < -1
    assert mine[2] == 0
    np.testing.assert_allclose(mine[[0, 1, 3]], alone, rtol=1e-6)


def test_overlong_is_measured_in_characters_and_has_no_end():
    from tunix.rl.grpo import dapo_learner

    buffer = {
        "overlong_buffer_length": 4, "overlong_buffer_penalty": 1.0, "max_response_length": 12,
    }  # fmt: skip
    words = "unquestionably " * 4  # four tokens or so
    theirs = dapo_learner.reward_shaping(["?"], [words], "train", overlong_buffer=buffer)[0]
    lengths_PG = jnp.array([[4.0, 10.0, 99.0]])
    mine = overlong_penalty(lengths_PG, limit=12, buffer=1 / 3, penalty=1.0)
    print(f"penalty of four words, limit 12: Tunix {theirs:.1f}, ours {float(mine[0, 0]):.1f}")
    assert theirs == -(len(words) - 8) / 4 < -10
    np.testing.assert_allclose(mine, [[0.0, 0.5, 1.0]], atol=1e-6)
