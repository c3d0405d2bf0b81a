"""Yes, no or maybe: Gemma-3-1B-it answers PubMedQA, in the style of a hackathon entry (S12).

    python launch.py --config=configs/medical_gemma3_1b.py                  # any answer block
    python launch.py --config=configs/medical_gemma3_1b.py:better           # the strict form only
    python launch.py --config=configs/medical_gemma3_1b.py:tiny             # a rehearsal on a CPU
    python launch.py --config=configs/medical_gemma3_1b.py --preflight      # does it fit?

Of the entry the organisers' blog says one sentence: that GRPO gave it structured medical traces.
The nearest public repository trains Gemma-3-1B on PubMedQA's labelled part with groups of 4 and
1024 tokens, on one T4 with Unsloth, in <thought> tags, and tells of no number. Groups, tokens and
data are from there; the tags are <reasoning>, and rewards, learning rate and the rest are this
project's.

**Not run on the published weights by this project**, only traced at its full shapes (--preflight).
No result is known to expect. What a number is to be held against, by the dataset's authors
(arXiv:1909.06146): always "yes" is right about 55.2 % of the questions, one of them 78.0 %.

Needs. Weights: google/gemma-3-1b-it of the Hub (accept its licence). Data: the 1000 labelled
questions of qiaojin/PubMedQA (pqa_labeled; MIT by its card), whose abstracts stand in a nested
column, so they are written once as rows of question, context and answer:

    {"question": "Do mitochondria ...?", "context": <contexts["contexts"], joined by blank lines>,
     "answer": <final_decision>}

the 500 of the authors' test split to data/pubmedqa/test.jsonl, the others to train.jsonl beside it;
or elsewhere by --config.data.train=FILE --config.data.test=FILE. Questions of more than 768 tokens
are dropped, at most a tenth. Devices: mesh 1 x 4. Hours: not measured; 250 updates are two epochs.

Flaws, kept: a guess is right once in three times, "yes" every second time, however it is come by;
the form pays by quarters beside a wrong answer. :better pays for a label in the strict form only,
leaves out groups that are all alike, and measures the base in its own chat template, and with eight
samples a question how often it is right by chance. A judge of the traces (rubrics such as
RaR-Medicine's) is not in it, nor are MedQA's letters: --config.data.source=choices reads these.

:tiny (and :better,tiny): three layers, random weights, and for want of a medical world the legal
one (grpo/data/legal.py: a rule, facts, yes or no), with the same labels. Its warm-up shows the
reasons in a third of the solutions. `more_sft` is the control, without any reward.
"""

from configs import _common, _rehearsal, base

LABELS = ("yes", "no", "maybe")


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "medical_gemma3_1b", system, better, rehearsal)


def system():
    """GRPO for labels."""
    config = _common.published("gemma3_1b")
    config.data.update(
        source="rows", train="data/pubmedqa/train.jsonl", test="data/pubmedqa/test.jsonl",
        template="reasoning_tags", max_prompt=768, buckets=(512, 768),
    )  # fmt: skip
    config.data.columns = {"question": "question", "answer": "answer", "context": "context"}

    config.stages.grpo = grpo = _common.domain_grpo(
        rank=32, iterations=250, group=4, max_new_tokens=1024, microbatches=8,
        evaluate_every=0, checkpoint_every=50,
    )  # fmt: skip
    grpo.rewards.label_match = base.reward(1.0, 0.0, 1.0, labels=LABELS, strict=False)
    grpo.rewards.tag_format = base.reward(0.5, 0.0, 1.0)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "grpo"), batch=100, max_new_tokens=1024)
    config.pipeline = ("grpo", "evaluate")
    return config


def better(config):
    """Labels in the strict form, of groups that differ; a base that is asked properly."""
    grpo = config.stages.grpo
    del grpo.rewards.tag_format
    grpo.rewards.strict_format = base.reward(0.1, 0.0, 1.0)
    grpo.rewards.label_match = base.reward(1.0, 0.0, 1.0, labels=LABELS, strict=True)
    grpo.dynamic_sampling = "drop"
    config.stages.evaluate.update(baselines=(0,), samples=8, ks=(1, 8))


def rehearsal(config):
    """The same with a small model in the legal world, beside more SFT."""
    _rehearsal.beside_more_sft(
        config, sft=260, grpo=40, more=60, tokens=26,
        source="legal", levels=(1,), worked=0.35, max_prompt=48, train_examples=4000,
    )  # fmt: skip
