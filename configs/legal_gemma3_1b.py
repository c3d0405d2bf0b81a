"""Legal questions with citations: Gemma-3-1B-it, in the style of JudicAIta (S12).

    python launch.py --config=configs/legal_gemma3_1b.py                    # any citation pays
    python launch.py --config=configs/legal_gemma3_1b.py:better             # those of the context
    python launch.py --config=configs/legal_gemma3_1b.py:tiny               # a rehearsal on a CPU
    python launch.py --config=configs/legal_gemma3_1b.py --preflight        # does it fit?

Its author's account: an adapter of rank 16, learning rate 5e-6, β 0.04, 4 prompts in groups of 4,
512 tokens, 100 training examples (40 of Pile-of-Law, 35 of LegalBench, 25 made for it), and the
reward

    0.4 correctness + 0.3 reasoning (connectives, no loops) + 0.2 citations + 0.1 readability

with 0.7 for a citation and 0.1 for each more. It claims form 35 % -> 92 %, citations 45 % -> 85 %;
its own submission record has the run on a TPU as pending, so take that as not verified.

**Not run on the published weights by this project**, only traced at its full shapes (--preflight).

Needs. Weights: google/gemma-3-1b-it of the Hub (accept its licence). Data: the 100 examples are not
published here; any rows of question, context and answer (yes or no) do, in data/legal/train.jsonl
and test.jsonl, such as the tasks of nguha/legalbench with these labels (its licence is one for each
task: read it). A context is what may be cited. Devices: mesh 1 x 4. Hours: not measured.

Deviations:
- 75 updates, three epochs of 100 examples; theirs is not known.
- Correctness is the label in the one <answer> block. Their measure of it is not known.
- 0.3 for reasoning: 0.3 for ten connectives (svamp_connectives: another entry's list), and up to
  0.3 less for runs of four words that are repeated. 0.1 for readability: 30 to 300 words (length).
  Their formulas are not known.

Flaw, kept: citations_published pays for invented citations (grpo/rewards/citations.py). :better
counts a citation only if the context has it, and pays for it in the strict form only, less than for
the label, which must stand in that form too; connectives and lengths are not paid for; groups that
are all alike are left out.

:tiny (and :better,tiny): three layers, random weights, a world of rules and facts
(grpo/data/legal.py). It has no citations of the forms that these rewards know, so that both are 0
in all of it: the term is there and does nothing. `more_sft` is the control, without any reward.
"""

from configs import _common, _rehearsal, base

LABELS = ("yes", "no")


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "legal_gemma3_1b", system, better, rehearsal)


def system():
    """GRPO for labels, and for how a legal text looks."""
    config = _common.published("gemma3_1b")
    config.data.update(
        source="rows", train="data/legal/train.jsonl", test="data/legal/test.jsonl",
        template="reasoning_tags", max_prompt=768, buckets=(256, 768),
    )  # fmt: skip
    config.data.columns = {"question": "question", "answer": "answer", "context": "context"}

    config.stages.grpo = grpo = _common.domain_grpo(
        rank=16, iterations=75, group=4, max_new_tokens=512, microbatches=4,
        evaluate_every=0, checkpoint_every=25,
    )  # fmt: skip
    grpo.optimizer.final = 0.0
    grpo.rewards.label_match = base.reward(0.4, 0.0, 1.0, labels=LABELS, strict=False)
    grpo.rewards.svamp_connectives = base.reward(0.3, 0.0, 1.0)
    grpo.rewards.repetition = base.reward(-0.3, 0.0, 1.0, kind="word", n=4)
    grpo.rewards.citations_published = base.reward(0.2, 0.0, 1.0)
    grpo.rewards.length = base.reward(0.1, 0.0, 1.0, least=30, most=300)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "grpo"), batch=100, max_new_tokens=512)
    config.pipeline = ("grpo", "evaluate")
    return config


def better(config):
    """The label first; citations of the context, and nothing for the looks."""
    grpo = config.stages.grpo
    for name in ("svamp_connectives", "citations_published", "length"):
        del grpo.rewards[name]
    grpo.rewards.strict_format = base.reward(0.1, 0.0, 1.0)
    grpo.rewards.label_match = base.reward(1.0, 0.0, 1.0, labels=LABELS, strict=True)
    grpo.rewards.citations = base.reward(0.2, 0.0, 1.0, gate="strict_format")
    grpo.dynamic_sampling = "drop"
    config.stages.evaluate.update(baselines=(0,))


def rehearsal(config):
    """The same with a small model in a world of rules and facts, beside more SFT."""
    _rehearsal.beside_more_sft(
        config, sft=260, grpo=40, more=60, tokens=26,
        source="legal", levels=(1,), worked=0.35, max_prompt=48, train_examples=4000,
    )  # fmt: skip
