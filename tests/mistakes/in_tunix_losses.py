"""Mistakes in preferences and distillation that Tunix's numbers give away."""

from tests.mistakes import Mistake

PREFERENCE, DIVERGENCE = "grpo/algorithms/preference.py", "grpo/algorithms/divergence.py"
DISTILLATION, LESSON = "grpo/algorithms/distillation.py", "grpo/training/distill_losses.py"
PAIRS, TAUGHT = "tests/test_tunix_preferences.py", "tests/test_tunix_distillation.py"
PAIRS_LOSS, TAUGHT_LOSS = (f"{file}::test_loss_and_metrics" for file in (PAIRS, TAUGHT))
PAIRS_GRADIENT, TAUGHT_GRADIENT = (f"{file}::test_gradients" for file in (PAIRS, TAUGHT))

MISTAKES = [
    Mistake("unlike Tunix's: DPO's log-ratio is a mean over tokens", PREFERENCE,
            '    """Σ_t log π/π_ref."""\n    return sum_P2 - ref_P2',
            '    """Σ_t log π/π_ref."""\n    return (sum_P2 - ref_P2) / length_P2', PAIRS_LOSS),
    Mistake("unlike Tunix's: DPO has β outside of the logistic function", PREFERENCE,
            "ahead_P = beta * (score_P2[:, 0] - score_P2[:, 1])",
            "ahead_P = score_P2[:, 0] - score_P2[:, 1]", PAIRS_LOSS),
    Mistake("unlike Tunix's: smoothing trusts the wrong label", PREFERENCE,
            "return -(1 - label_smoothing) * right_P - label_smoothing * wrong_P",
            "return -(1 - label_smoothing) * wrong_P - label_smoothing * right_P", PAIRS_LOSS),
    Mistake("unlike Tunix's: odds of 1 + p", PREFERENCE,
            "jnp.log(-jnp.expm1(log_p_P2))", "jnp.log1p(jnp.exp(log_p_P2))", PAIRS_LOSS),
    Mistake("like Tunix's: odds of a whole completion", PREFERENCE,
            "jnp.minimum(sum_P2 / length_P2, NEAREST)", "jnp.minimum(sum_P2, NEAREST)",
            f"{PAIRS}::test_odds_of_whole_completions_are_not_the_papers"),
    Mistake("unlike Tunix's: the rejected completion has no gradient", PREFERENCE,
            "ahead_P = beta * (score_P2[:, 0] - score_P2[:, 1])",
            "ahead_P = beta * (score_P2[:, 0] - jax.lax.stop_gradient(score_P2[:, 1]))",
            PAIRS_GRADIENT),
    Mistake("unlike Tunix's: ORPO's weight is on the supervised term", PREFERENCE,
            'objective.coef * sums["loss/preference"] + objective.sft_coef * sums["loss/sft"]',
            'objective.sft_coef * sums["loss/preference"] + objective.coef * sums["loss/sft"]',
            PAIRS_LOSS),
    Mistake("unlike Tunix's: KL from the student to the teacher", DIVERGENCE,
            "return t * (log_t - log_p), -t", "return p * (log_p - log_t), p * (log_p - log_t)",
            TAUGHT_LOSS),
    Mistake("unlike Tunix's: distributions at T = 1", LESSON,
            "                temperature=objective.temperature,\n                **parts",
            "                temperature=1.0,\n                **parts", TAUGHT_LOSS),
    Mistake("unlike Tunix's: labels are read at T", LESSON,
            "targets_BC = logprobs(1.0)", "targets_BC = logprobs(objective.temperature)",
            TAUGHT_LOSS),
    Mistake("unlike Tunix's: the teacher's logits have the student's soft-cap", LESSON,
            "functools.partial(logits_by, self.teacher),", "unembed,", TAUGHT_LOSS),
    Mistake("unlike Tunix's: the teacher teaches no gradient", DISTILLATION,
            'loss = objective.coef * sums["divergence"]',
            'loss = objective.coef * jax.lax.stop_gradient(sums["divergence"])', TAUGHT_GRADIENT),
]
