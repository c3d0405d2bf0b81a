"""DPO's and ORPO's losses and their gradients as Tunix 0.1.7 computes them.

    python -m tests.references.tunix_preferences        (pip install -e '.[test,parity]')

writes tunix_preferences.npz beside this file; tests/test_tunix_preferences.py reads it without
Tunix, and tests/parity/test_tunix_losses_live.py runs `run_case` again. Pairs go through
Tunix's trainer, which scores them with the reference. Weights and ids are drawn by `recipe`;
gradients are in our layout, as random projections where they are many.
"""

from typing import Any

import numpy as np

from tests.references.recipe import draw_ids
from tests.references.tunix_losses import NEW, PROMPT, entries
from tests.references.tunix_models import COMMON, HERE, build

PAIRS = 4
PROMPT_LENGTHS = (10, 7, 3, 8)
LENGTHS = ((12, 11), (7, 8), (1, 2), (9, 9))  # chosen, rejected: full, ragged, short
REFERENCE_SEED = 1
# In Tunix's words; `reference`: whether the trainer is given one, `one_token`: of each completion.
DEFAULTS = {
    "model": "gemma3_small",
    "algorithm": "dpo",
    "beta": 0.1,
    "lambda_orpo": 0.1,
    "label_smoothing": 0.0,
    "reference": True,
    "one_token": False,
}
ORPO = {"algorithm": "orpo", "reference": False}
CASES = {
    "dpo": {},
    "dpo_smooth": {"label_smoothing": 0.2},
    "dpo_sharp": {"beta": 0.3},
    "dpo_no_reference": {"reference": False},
    "dpo_gemma2": {"model": "gemma2_small"},
    "orpo": ORPO,
    "orpo_smooth": {**ORPO, "lambda_orpo": 0.5, "label_smoothing": 0.2},
    "orpo_gemma2": {**ORPO, "model": "gemma2_small"},
    "orpo_one_token": {**ORPO, "lambda_orpo": 0.7, "one_token": True},
    "orpo_one_token_smooth": {
        **ORPO, "lambda_orpo": 0.7, "label_smoothing": 0.1, "one_token": True,
    },
}  # fmt: skip
WHOLE = ("dpo", "orpo_one_token")  # stored with every number of the gradient
METRICS = {
    "dpo": ("rewards/margin", "rewards/accuracy"),
    "orpo": ("rewards/accuracy", "sft_loss", "or_loss"),
}


def case_of(name: str) -> dict:
    """A case with everything said."""
    return {**DEFAULTS, **CASES[name]}


def pairs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """[P, 2, T] token ids and mask: prompts padded on the left, completions on the right."""
    column = np.arange(PROMPT + NEW)
    lengths_P2 = np.ones((PAIRS, 2), int) if case_of(name)["one_token"] else np.array(LENGTHS)
    start = PROMPT - np.array(PROMPT_LENGTHS)[:, None, None]
    mask = (column >= start) & (column < PROMPT + lengths_P2[..., None])
    ids = draw_ids(8, 2 * PAIRS, PROMPT + NEW, COMMON["num_embed"]).reshape(PAIRS, 2, -1)
    ids[:, 1, :PROMPT] = ids[:, 0, :PROMPT]
    return ids * mask, mask.astype(np.int32)


def inputs(name: str) -> tuple[Any, Any, dict]:
    """Tunix's module, what its trainer makes of the pairs, and the keywords of its loss."""
    import optax
    from tunix.sft.dpo import dpo_trainer

    case = case_of(name)
    module, _ = build(case["model"])
    reference = build(case["model"], REFERENCE_SEED)[0] if case["reference"] else None
    options = ("algorithm", "beta", "lambda_orpo", "label_smoothing")
    config = dpo_trainer.DPOTrainingConfig(
        eval_every_n_steps=1, max_steps=1, **{key: case[key] for key in options}
    )
    trainer = dpo_trainer.DPOTrainer(module, reference, optax.sgd(0.0), config)
    ids, mask = pairs(name)
    example = trainer._prepare_inputs(
        dpo_trainer.TrainingInput(
            prompt_ids=ids[:, 0, :PROMPT],
            prompt_mask=mask[:, 0, :PROMPT],
            chosen_ids=ids[:, 0, PROMPT:],
            chosen_mask=mask[:, 0, PROMPT:],
            rejected_ids=ids[:, 1, PROMPT:],
            rejected_mask=mask[:, 1, PROMPT:],
        )
    )
    return module, example, trainer.gen_model_input_fn(example)


def run_case(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Tunix's numbers for a case, and its gradient in our layout."""
    from flax import nnx
    from tunix.sft.dpo import dpo_trainer

    from tests.references.tunix_layout import gradient_of

    case = case_of(name)
    module, example, keywords = inputs(name)
    (loss, aux), grads = nnx.value_and_grad(
        lambda module: dpo_trainer.dpo_loss_fn(module, **keywords), has_aux=True
    )(module)
    arrays = {"loss": np.asarray(loss)}
    arrays |= {key: np.asarray(aux[key]) for key in METRICS[case["algorithm"]]}
    if case["reference"]:
        columns = example.ref_chosen_logps, example.ref_rejected_logps
        arrays["reference"] = np.stack(columns, axis=1)
    return arrays, gradient_of(case["model"], grads)


def main() -> None:
    """Writes the fixture."""
    stored: dict[str, Any] = {}
    for name in CASES:
        stored |= entries(name, *run_case(name), name in WHOLE)
    np.savez_compressed(HERE / "tunix_preferences.npz", **stored)


if __name__ == "__main__":
    main()
