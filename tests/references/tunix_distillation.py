"""The loss of logit distillation and its gradient as Tunix 0.1.7 computes them.

    python -m tests.references.tunix_distillation        (pip install -e '.[test,parity]')

writes tunix_distillation.npz beside this file; tests/test_tunix_distillation.py reads it without
Tunix, and tests/parity/test_tunix_losses_live.py runs `run_case` again. Student and teacher
are of the same family or of two. Tunix averages over every position that it is given: where rows
are padded, the forward functions, which are its user's, hand it those of the completions' tokens.
"""

from typing import Any

import numpy as np

from tests.references.recipe import draw_ids
from tests.references.tunix_losses import NEW, PROMPT, ROWS, entries, rows
from tests.references.tunix_models import COMMON, HERE, build

TEACHER_SEED = 1
# In Tunix's words; `full`: rows without padding, and every position of the completions counts.
DEFAULTS = {
    "model": "gemma3_small",
    "teacher": "gemma3_small",
    "alpha": 0.5,
    "temperature": 2.0,
    "full": False,
}
CASES = {
    "default": {},
    "full": {"full": True},
    "warm": {"alpha": 0.3, "temperature": 1.0},
    "hot": {"alpha": 0.8, "temperature": 5.0},
    "cold": {"temperature": 0.7},
    "teacher_alone": {"alpha": 1.0},
    "labels_alone": {"alpha": 0.0},
    "gemma2": {"model": "gemma2_small", "teacher": "gemma2_small", "alpha": 0.7},
    "gemma2_of_gemma3": {"model": "gemma2_small", "alpha": 0.7, "temperature": 1.5},
    "gemma3_of_gemma2": {"teacher": "gemma2_small", "alpha": 0.7, "temperature": 1.5},
}
WHOLE = ("default",)  # stored with every number of the gradient
METRICS = ("distill/soft_loss", "distill/hard_loss", "distill/kl_div")


def case_of(name: str) -> dict:
    """A case with everything said."""
    return {**DEFAULTS, **CASES[name]}


def tokens(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask of a case."""
    if not case_of(name)["full"]:
        return rows()
    ids = draw_ids(9, ROWS, PROMPT + NEW, COMMON["num_embed"])
    return ids, np.ones_like(ids)


def logits_that_count(module, input_tokens, input_mask, places):
    """[N, V] logits of what comes before the tokens at some places (row, column)."""
    from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

    positions = build_positions_from_mask(input_mask)
    logits, _ = module(input_tokens, positions, None, make_causal_attn_mask(input_mask))
    return logits[places[0], places[1] - 1]


def run_case(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Tunix's numbers for a case, and its gradient in our layout."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from tunix.distillation.strategies.logit import LogitStrategy

    from tests.references.tunix_layout import gradient_of

    case = case_of(name)
    ids, mask = tokens(name)
    places = np.nonzero(mask * (np.arange(PROMPT + NEW) >= PROMPT))

    def forward(module, input_tokens, input_mask):
        return logits_that_count(module, input_tokens, input_mask, places)

    def labels(input_tokens, input_mask):
        return jax.nn.one_hot(input_tokens[places], COMMON["num_embed"])

    strategy = LogitStrategy(
        forward, forward, labels, temperature=case["temperature"], alpha=case["alpha"]
    )
    student, teacher = build(case["model"])[0], build(case["teacher"], TEACHER_SEED)[0]
    given = {"input_tokens": jnp.asarray(ids), "input_mask": jnp.asarray(mask != 0)}
    said = strategy.get_teacher_outputs(teacher, given)
    (loss, aux), grads = nnx.value_and_grad(
        lambda module: strategy.get_train_loss(module, said, given), has_aux=True
    )(student)
    arrays = {"loss": np.asarray(loss)} | {key: np.asarray(aux[key]) for key in METRICS}
    return arrays, gradient_of(case["model"], grads)


def main() -> None:
    """Writes the fixture."""
    stored: dict[str, Any] = {}
    for name in CASES:
        stored |= entries(name, *run_case(name), name in WHOLE)
    np.savez_compressed(HERE / "tunix_distillation.npz", **stored)


if __name__ == "__main__":
    main()
