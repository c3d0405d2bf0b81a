"""What Tunix 0.1.7 does in ORPO and distillation that this code does not inherit.

Each is shown on Tunix, then on ours; the table is in docs/tunix.md, as test_tunix_defects.py says.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distillation import (
    Distillation,
    Taught,
    distillation_loss,
    tail_divergence,
    with_weights,
)
from grpo.algorithms.divergence import divergence
from grpo.algorithms.preference import Pairs, preference_loss
from grpo.algorithms.presets import PREFERENCES

pytest.importorskip("tunix", reason="Tunix is not installed: pip install -e '.[test,parity]'")
# Tunix and what it stands on warn as they please.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

NEVER = -200.0  # a logit of what has no probability in float32
ORPO = dataclasses.replace(PREFERENCES["orpo"], coef=1.0, sft_coef=0.0)


def tunix_orpo(logprob_2C, mask_2C):
    """Tunix's term of the odds, and the gradient of its loss, for a pair of log-probs."""
    from flax import nnx
    from tunix.sft.dpo import dpo_trainer

    class Said(nnx.Module):
        """Of two tokens the first has the given log-prob wherever it is asked."""

        def __init__(self):
            # A column in front, whose logits score the first token of the completion.
            p_2C = jnp.exp(jnp.asarray(logprob_2C))
            both_2C2 = jnp.stack([p_2C, 1 - p_2C], axis=-1)
            self.logits = nnx.Param(jnp.maximum(jnp.log(both_2C2), NEVER))

        def __call__(self, tokens, positions, attention_mask, cache):
            return jnp.pad(self.logits[...], ((0, 0), (0, 1), (0, 0))), None

    ids = jnp.zeros((2, mask_2C.shape[1] + 1), jnp.int32)
    example = dpo_trainer.TrainExample(
        input_ids=ids,
        positions=ids,
        attention_mask=ids,
        ref_chosen_logps=None,
        ref_rejected_logps=None,
        completion_mask=jnp.asarray(mask_2C, jnp.int32),
        logits_to_keep=mask_2C.shape[1],
    )
    (_, aux), grads = nnx.value_and_grad(
        lambda model: dpo_trainer.dpo_loss_fn(model, example, "orpo"), has_aux=True
    )(Said())
    return float(aux["or_loss"]), jax.tree.leaves(grads)[0]


def our_orpo(logprob_2C, mask_2C):
    """The same of ours."""
    pairs = Pairs(
        ids_P2T=None,
        mask_P2T=None,
        completion_mask_P2C=mask_2C[None].astype(np.int32),
        ref_logprob_P2=None,
        margin_P=np.zeros(1, np.float32),
        moved_P=None,
        share_P=np.ones(1, np.float32),
        weight_PC=np.zeros((1, mask_2C.shape[1]), np.float32),
    )
    return jax.value_and_grad(lambda x_2C: preference_loss(x_2C[None], pairs, objective=ORPO)[0])(
        jnp.float32(logprob_2C)
    )


def tunix_distillation(z, teacher_z, ids, **options):
    """Tunix's loss of logits."""
    from tunix.distillation.strategies.logit import LogitStrategy

    strategy = LogitStrategy(lambda: None, lambda: None, lambda: None, **options)
    return float(strategy.compute_loss(z, teacher_z, jax.nn.one_hot(ids, z.shape[-1]))[0])


def our_distillation(z, teacher_z, mask_BC):
    """Our KL(t ‖ p) of logits, over the tokens of a mask."""
    objective = Distillation(
        beta=0.0, temperature=1.0, student_share=0.0, coef=1.0, sft_coef=0.0, top_k=0
    )
    counts_BC = jnp.float32(mask_BC)
    rows = with_weights(Taught(None, None, counts_BC, counts_BC, counts_BC), False)
    return float(
        distillation_loss(divergence(0.0, z, teacher_z), None, rows, objective=objective)[0]
    )


def test_orpo_prefers_what_is_short():
    # Every token has probability 1/2: by the paper's measure the two are as good as each other.
    mask_2C = np.arange(10) < np.array([[10], [3]])
    logprob_2C = np.full((2, 10), -np.log(2), np.float32)
    theirs, _ = tunix_orpo(logprob_2C, mask_2C)
    mine, _ = our_orpo(logprob_2C, mask_2C)
    print(f"ORPO's term, 10 tokens against 3 of the same: Tunix {theirs:.2f}, ours {mine:.2f}")
    odds = [p / (1 - p) for p in (0.5**10, 0.5**3)]
    assert theirs == pytest.approx(np.log1p(odds[1] / odds[0]), rel=1e-5) and theirs > 4
    assert float(mine) == pytest.approx(np.log(2), rel=1e-5)


def test_orpo_of_a_certain_completion_is_no_number():
    mask_2C = np.ones((2, 3), bool)
    logprob_2C = np.array([[0.0] * 3, [-1.0] * 3], np.float32)
    _, theirs = tunix_orpo(logprob_2C, mask_2C)
    loss, mine = our_orpo(logprob_2C, mask_2C)
    print(f"gradients of ORPO where p = 1: Tunix {np.isnan(theirs).sum()} of 12 are NaN, ours none")
    assert np.isnan(theirs).any()
    assert np.isfinite(loss) and np.all(np.isfinite(mine))


def test_distillation_averages_over_padding():
    random = np.random.RandomState(0)
    z, teacher_z = (jnp.float32(random.standard_normal((2, 8, 5))) for _ in range(2))
    ids, mask = jnp.zeros((2, 8), jnp.int32), np.arange(8) < np.array([[3], [2]])
    options = {"temperature": 1.0, "alpha": 1.0}
    real = tunix_distillation(z[mask], teacher_z[mask], ids[mask], **options)
    # In the padding the two models agree, or they do not.
    agreed = jnp.where(mask[..., None], teacher_z, z)
    theirs, other = (tunix_distillation(z, t, ids, **options) for t in (agreed, teacher_z))
    mine, same = (our_distillation(z, t, mask) for t in (agreed, teacher_z))
    print(
        f"the divergence {real:.3f} of 5 tokens in 16 columns: Tunix {theirs:.3f} or {other:.3f} "
        f"by what the padding holds, ours {mine:.3f}"
    )
    assert theirs == pytest.approx(real * 5 / 16, rel=1e-5) and other > 1.5 * theirs
    assert mine == same == pytest.approx(real, rel=1e-5)


def test_top_k_forgets_the_rest():
    # The likeliest two of the teacher have 0.6 and 0.3; of the student 0.006 and 0.003.
    t, p = np.array([[0.6, 0.3, 0.1]]), np.array([[0.006, 0.003, 0.991]])
    z, teacher_z = (jnp.log(jnp.float32(x)) for x in (p, t))
    options = {"temperature": 1.0, "alpha": 1.0, "distill_top_k": 2}
    theirs = tunix_distillation(z, teacher_z, jnp.zeros(1, jnp.int32), **options)
    mine = float(tail_divergence(0.0, z[None, :, :2], teacher_z[None, :, :2])[0, 0])
    print(f"top 2, with 1 % of the mass they should have: Tunix {theirs:.2f}, ours {mine:.2f}")
    assert abs(theirs) < 1e-6
    assert mine == pytest.approx(np.sum(t * np.log(t / p)), rel=1e-5) and mine > 3
