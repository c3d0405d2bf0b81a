"""The probability of the reference answer as a reward, against log-probs row by row."""

import math

import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.templates import TEMPLATES, prompt_ids
from grpo.pipeline import STAGES
from grpo.runs.given_rewards import Batch
from grpo.runs.reference_reward import NONE, ReferenceProbability, place_of, programs
from models.policy import logits
from tests.small_run import assert_same_run, launch, rows, small, small_grpo, stop_at, watched
from tests.small_run import workshop as small_workshop
from tests.tiny_run import EXAMPLES, policy_of

TEMPLATE, BUCKETS = TEMPLATES["plain"], (48,)
TEXTS = [
    "<reasoning>1 and 1</reasoning><answer>2</answer>",
    "<answer>77",
    "no place",
    "<reasoning>" + "1234567890" * 9 + "</reasoning><answer>2",  # no longer fits
]


def stage_of(**changes):
    stage = base.grpo()
    stage.update(prompts=2, group=2, max_new_tokens=60, **changes)
    stage.rewards.reference_probability = base.reward(1.0, 0.0, 1.0, max_answer=4)
    return stage.to_dict()


def probability(policy, example, before):
    """The mean probability of the answer's tokens, from all logits of one row."""
    tokenizer = policy.own_tokenizer
    answer = tokenizer.encode(example["answer"], bos=False)
    ids = [*prompt_ids(tokenizer, example, TEMPLATE), *tokenizer.encode(before, bos=False)]
    z_TV = np.asarray(logits(policy, [[*ids, *answer]])[0], float)
    each = []
    for place, token in enumerate(answer, start=len(ids)):
        z_V = z_TV[place - 1]
        each.append(math.exp(z_V[token] - z_V.max()) / np.exp(z_V - z_V.max()).sum())
    return sum(each) / len(each)


def test_it_is_the_probability_after_the_reasoning_less_that_after_none():
    policy, stage = policy_of(), stage_of()
    examples = [EXAMPLES[0], EXAMPLES[0], EXAMPLES[4], EXAMPLES[4]]
    reward = ReferenceProbability(
        programs(stage, policy, BUCKETS)["reference_probability"], stage, TEMPLATE, BUCKETS
    )
    found = reward(Batch(None, None, examples, TEXTS, policy, {})).value_B
    assert found[2] == 0.0 and np.isnan(found[3])
    # Answers of one and of two tokens, whose probabilities differ from each other's.
    before = ["<reasoning>1 and 1</reasoning><answer>", "<answer>"]
    texts = [f"{text}5</answer>" for text in [*before, *before]]
    found = reward(Batch(None, None, examples, texts, policy, {})).value_B
    none = [probability(policy, example, NONE) for example in examples]
    p_B = np.array([probability(policy, *pair)
                    for pair in zip(examples, [*before, *before], strict=True)])  # fmt: skip
    np.testing.assert_allclose(found, np.clip(p_B - none, 0, 1), atol=1e-6)
    assert min(p_B - none) < -1e-5 and max(found[:2]) > 1e-5 and max(found[2:]) > 1e-5
    assert abs(none[0] - none[2]) > 1e-4


def test_answers_are_put_behind_the_first_answer_tag():
    tokenizer = policy_of().own_tokenizer
    place = place_of(tokenizer, TEMPLATE, EXAMPLES[1], "a<answer>5</answer><answer>6")
    assert tokenizer.decode(place.before) == "a<answer>"
    assert tokenizer.decode(place.answer) == EXAMPLES[1]["answer"]
    assert (
        place_of(tokenizer, TEMPLATE, EXAMPLES[1], "a").before
        == place_of(tokenizer, TEMPLATE, EXAMPLES[1], NONE).before
    )


def config_of() -> base.ConfigDict:
    config = small()
    config.stages.grpo = stage = small_grpo()
    stage.rewards.reference_probability = base.reward(1.0, 0.0, 1.0, max_answer=6)
    config.pipeline = ("grpo",)
    return config


def test_in_a_run_it_is_logged_and_goes_on_bit_by_bit(tmp_path):
    with small_workshop():
        assert launch(config_of(), tmp_path / "straight") == 0
        with watched(stop_at("grpo update 2")):
            assert launch(config_of(), tmp_path / "stopped") == 75
        assert launch(config_of(), tmp_path / "stopped") == 0
        assert_same_run(tmp_path / "straight", tmp_path / "stopped")
        values = [row["reward"]["reference_probability"]
                  for row in rows(tmp_path / "straight", "rollouts")]  # fmt: skip
        assert values and all(0.0 <= value <= 1.0 for value in values)


@pytest.mark.parametrize("most", [0, -3])
def test_a_config_that_makes_no_sense_is_refused(most):
    config = config_of().to_dict()
    config["stages"]["grpo"]["rewards"]["reference_probability"]["options"]["max_answer"] = most
    (found,) = problems(config, STAGES)
    assert found.startswith("stages.grpo.rewards.reference_probability.options.max_answer")
