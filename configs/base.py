"""Every field of a config, its default and what it means: the only home of defaults.

An experiment is a file beside this one with a `get_config(variant="")` that starts from `base()`,
adds its stages (`sft()`, `grpo()`, `evaluate()`) under names of its own and changes what it must.
What values a field may have is said in grpo/checks/rules.py, all at once, before anything is
loaded. `optional(float)` is a field that may be None.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder as optional


def base() -> ConfigDict:
    """What every run has; its stages are added by the experiment."""
    return ConfigDict({
        "seed": 0,  # of everything: weights, data, order, sampling
        # Of a launch, such as "8h40m": it saves and ends before, with exit code 75; None: none.
        "time_budget": optional(str),
        "patience": 5,  # updates that are not finite, or batches without rewards, in a row
        "model": model(),
        "models": {},  # further ones, such as a teacher: name -> model()
        "judges": {},  # what grades completions: name -> judge()
        "mesh": {"fsdp": 1, "tp": 1},  # devices along each axis; 1 x 1 needs no mesh
        # Devices of teachers and judges that have some of their own: the name of one of `models`,
        # or of the stage whose end is asked -> mesh()
        "meshes": {},
        # What stages read that name no other dataset. The buckets are the prompt lengths, in
        # tokens, that are compiled for all datasets; the last one is the largest max_prompt.
        "data": dataset(buckets=(64,)),
        "datasets": {},  # further ones: name -> dataset()
        "pipeline": (),  # names of stages, in order
        "stages": {},
        "evaluation": {  # of what is measured while a stage runs, greedily
            "data": optional(str),  # a name in datasets, or data; None: what the stage reads
            "split": "test",  # or validation, train
            "examples": 200,  # the first of the split
            "batch": 100,
            "max_new_tokens": 48,
        },
        "checkpoint": {
            "keep_last": 2,  # of each stage; its final and its best one are kept as well
            "best_mode": "max",  # of accuracy: max or min
            "allow_fresh": False,  # start a stage again if none of its checkpoints can be read
        },
        "log": {
            "every_s": 10.0,  # seconds between two lines in a log; a terminal is live
            # Whether rollouts.jsonl has each token's text, log-probs and entropy; about three times
            # its size, and a forward pass of what was sampled
            "tokens": False,
        },
    })  # fmt: skip


def model(**fields) -> ConfigDict:
    """A model, with some fields set: models/loading.py."""
    section = ConfigDict({
        "path": optional(str),  # a directory, .gguf file, Hub repository, package; None: random
        "revision": optional(str),  # of a Hub repository, best a commit
        "size": "gemma3_tiny",  # of random weights and of --preflight: models/config.py
        "vocab": 512,  # pieces of the tokenizer that is trained for random weights
        "whole": (),  # texts, such as tags, that are one piece of it wherever they occur
        "dtype": "float32",  # of activations and cache: float32, bfloat16
        # Of the weights; adapters are always float32. Where all parameters are trained,
        # bfloat16 rounds most small updates away.
        "param_dtype": "float32",
        "attention": "einsum",  # how scores are computed: models/attention.py
        # What the backward pass computes again: none, all but the products of weights, full.
        "remat": "dots",
        "unroll": 1,  # layers in one step of the scan over depth; all: no loop
        # Whether the update reads a prompt once for the completions of its group: models/forks.py.
        "share_prompts": True,
        # Weights that are not trained, along fsdp: split, and gathered for each use of them; or
        # whole on every device, where there is memory for it.
        "frozen_weights": "split",
        # Completions that are written at a time, None: all of a batch. Who ends makes room for
        # the next; when none waits, as many halvings of the seats: grpo/rollout/seats.py.
        "seats": optional(int),
        "halvings": 0,
    })  # fmt: skip
    section.update(fields)
    return section


def mesh(*, fsdp: int, tp: int, first: int) -> ConfigDict:
    """Devices along each axis, from that number on: grpo/checks/devices.py."""
    return ConfigDict({"fsdp": fsdp, "tp": tp, "first": first})


def judge(**fields) -> ConfigDict:
    """Who grades completions, and how, with some fields set: grpo/judges/, grpo/runs/judges.py."""
    section = ConfigDict({
        # One of these answers:
        "model": optional(str),  # the end of a stage, base, or a name in models
        "url": optional(str),  # an OpenAI-compatible server, such as https://host/v1
        "replay": optional(str),  # a recording: judges/<name>.jsonl of an earlier run
        "prompt": "overall",  # criterion, overall, right, found: grpo/judges/prompts.py
        "rubric": "generic",  # a name in grpo/judges/rubrics.py; each example's own: column, steps
        "scale": "nine",  # the words of a verdict: yes_no, five, nine
        # Of a model of ours
        "scores": "soft",  # by its probabilities of the scale's words; or hard: by one word
        "least_mass": 0.5,  # share of its probability that must be on the scale
        "max_prompt": 1024,  # tokens; what is longer has no verdict
        "batch": 16,  # prompts at a time
        "temperature": 0.0,  # of hard scores, and of a server; 0: the likeliest
        # Of a server; `name` is needed
        "name": optional(str),  # of the model there
        "key": optional(str),  # the environment variable that has the key; None: none is needed
        "max_tokens": 16,  # of a reply
        "concurrency": 8,  # questions on their way at a time
        "attempts": 4,
        "seconds": 30.0,  # for a question, all its attempts and waits
        "batch_seconds": 300.0,
    })  # fmt: skip
    section.update(fields)
    return section


def dataset(**fields) -> ConfigDict:
    """A dataset, with some fields set: grpo/data/datasets.py."""
    section = ConfigDict({
        # Made here: arithmetic, planning, stoichiometry, legal. Files: gsm8k; rows, traces,
        # rubrics, choices (with columns); preferences (rows of pairs). Or a mixture of others.
        "source": "arithmetic",
        "train": optional(str),  # files: .jsonl, .csv, .parquet, or owner/name/file of the Hub
        "validation": optional(str),
        "test": optional(str),
        "columns": {"question": "question", "answer": "answer"},  # ours -> the file's
        "strip_commas": True,  # golds "1,080" are read as "1080" (gsm8k)
        "calculator": "removed",  # <<48/2=24>> in solutions; or parentheses, as published (gsm8k)
        "max_bad": 0.0,  # share of bad rows that is passed over; more is an error
        "levels": (2,),  # of a world made here
        "worked": 1.0,  # share of its solutions that show their working
        "train_examples": 2000,  # how many are made here
        # Made here; or the last of the training file, at most a fifth, which is trained without.
        "validation_examples": 0,
        "test_examples": 200,  # how many are made here
        # Shares of the questions that a hash holds out, where the training file is the only one.
        "validation_share": 0.0,
        "test_share": 0.0,
        # Training questions that share words with held-out ones: off, report, drop, abort.
        "contamination": "off",
        "ngram": 13,  # words in a row
        "of": (),  # names of the datasets that a mixture is made of
        "mixing_temperature": 1.0,  # 1: in proportion to the sizes; more: more equally
        "template": "plain",  # a name in grpo/data/templates.py
        # Worked training examples that stand before each question, as earlier turns of the
        # conversation: the first ones, which are then not trained on.
        "shots": 0,
        "max_prompt": 64,  # tokens, shots among them; longer examples are dropped, never cut
        "min_kept": 0.9,  # smallest share of examples that may be left
    })  # fmt: skip
    for name, value in fields.items():
        section[name] = ConfigDict(value) if isinstance(value, dict) else value
    return section


def optimizer() -> ConfigDict:
    """AdamW: grpo/training/optimizer.py."""
    return ConfigDict({
        "learning_rate": 1e-4,  # the peak
        "schedule": "constant",  # or cosine
        "warmup": 0.1,  # share of the updates in which it grows to the peak
        "final": optional(float),  # share of the peak at the end of a cosine; None: constant
        "schedule_updates": optional(int),  # length of the schedule; None: the stage's updates
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decayed": ".*",  # regex of the parameters' paths
        "clip_norm": 1.0,  # of the global gradient; None: no clip
    })  # fmt: skip


def sampling(temperature: float = 1.0) -> ConfigDict:
    """What the sampler draws from: grpo/algorithms/distribution.py."""
    return ConfigDict({
        "temperature": temperature,  # 0: the likeliest token
        "top_k": 0,  # 0: all
        "top_p": 1.0,
        "min_p": 0.0,
    })  # fmt: skip


def decoding(preset: str = "policy") -> ConfigDict:
    """What an evaluation draws from: a preset, and the fields in which it is to differ.

    None is what the preset has: grpo/algorithms/decoding.py.
    """
    return ConfigDict({
        "preset": preset,  # policy, greedy, standard, liberal, judge
        "temperature": optional(float),
        "top_k": optional(int),
        "top_p": optional(float),
        "min_p": optional(float),
        "seed": optional(int),  # None, and none in the preset: the run's
    })  # fmt: skip


def lora() -> ConfigDict:
    """What is trained: an adapter, or with rank None all parameters."""
    return ConfigDict({
        "rank": optional(int),
        "alpha": 64.0,  # the adapter's product is scaled by alpha / rank
        "targets": ".*",  # regex over q, k, v, o, gate, up, down
        "rslora": False,  # scaled by alpha / sqrt(rank) instead
    })  # fmt: skip


def sft() -> ConfigDict:
    """Supervised training on worked solutions: grpo/stages/sft.py."""
    return ConfigDict({
        "kind": "sft",
        "data": optional(str),  # a name in datasets; None: data
        # The stage to go on from, or base; None: the one before in the pipeline. The order of the
        # examples begins anew in each stage.
        "start": optional(str),
        "lora": lora(),
        "steps": 200,  # optimizer updates
        "solutions": optional(str),  # a stage of kind traces before it; None: those of data
        "examples": optional(int),  # how many of the training examples; None: all
        "batch": 64,  # examples per update; with packing, rows
        "microbatches": 1,  # parts in which a batch goes through the model
        "max_target": 48,  # tokens; longer solutions are dropped, never cut
        "packing": optional(int),  # tokens of a row that holds several examples; None: one each
        "optimizer": optimizer(),
        "evaluate_every": 0,  # updates; 0: never
        "checkpoint_every": 100,  # updates; the end of a stage is always kept
    })  # fmt: skip


def traces() -> ConfigDict:
    """Worked solutions that a policy writes: grpo/stages/traces.py."""
    return ConfigDict({
        "kind": "traces",
        "data": optional(str),
        "policy": "base",  # who writes them: the end of a stage, base, or a name in models
        # as_trained: the question in the template of the data; instructed: told how to answer
        "ask": "as_trained",
        "examples": optional(int),  # how many of the training examples are asked; None: all
        "batch": 64,  # questions at a time
        "samples": 4,  # how often a question is asked at most, until it has a solution
        "max_prompt": optional(int),  # tokens of the longest that is asked; None: that of data
        "max_new_tokens": 48,
        "max_target": 48,  # tokens; longer solutions are dropped, never cut
        "checkpoints": 1,  # of a solution, at least
        "min_kept": 0.1,  # smallest share of the questions that have a solution
        "sampling": sampling(),
    })  # fmt: skip


def pairs() -> ConfigDict:
    """Preferences out of a policy's own completions: grpo/stages/pairs.py."""
    return ConfigDict({
        "kind": "pairs",
        "data": optional(str),
        "policy": "base",  # the end of a stage, or base: the model as loaded
        "prompts": 512,  # training examples that are sampled for
        "batch": 64,  # prompts at a time
        "group": 8,  # completions per prompt
        "max_new_tokens": 48,
        "sampling": sampling(),
        "against": ("malformed", "wrong", "verbose"),  # what is rejected, a pair for each
        "verbose": 1.5,  # times the tokens of the chosen one, from which a right one is verbose
        "least": 32,  # pairs; fewer are an error
    })  # fmt: skip


def preference() -> ConfigDict:
    """Training on preferences: grpo/stages/preference.py."""
    return ConfigDict({
        "kind": "preference",
        "preferences": "pairs",  # a name in datasets, or a stage of kind pairs before it
        "data": optional(str),  # what is asked while it runs
        "start": optional(str),
        "lora": lora(),
        "steps": 100,  # optimizer updates
        "batch": 32,  # pairs per update
        "microbatches": 1,
        "max_completion": 48,  # tokens; pairs with longer completions are dropped, never cut
        "reference": "start",  # of this stage, or base
        "loss": preference_loss(),
        "optimizer": optimizer(),
        "evaluate_every": 0,  # updates; 0: never
        "checkpoint_every": 100,
    })  # fmt: skip


def preference_loss() -> ConfigDict:
    """The objective of an update from preferences: a preset, and in what it is to differ.

    None is what the preset has: grpo/algorithms/presets.py; the formulas: preference.py there.
    """
    return ConfigDict({
        "preset": "dpo",  # dpo, ipo, simpo, orpo, kto
        "score": optional(str),  # of a completion: ratio, ratio_mean, mean, odds
        "comparison": optional(str),  # of two scores: logistic, square, apart
        "beta": optional(float),  # steepness
        "gamma": optional(float),  # by how much the chosen one is to be ahead
        "margin_coef": optional(float),  # how much more, per unit of a pair's own margin
        "label_smoothing": optional(float),  # share of pairs that may be the wrong way round
        "desirable": optional(float),  # weight of chosen completions under apart
        "undesirable": optional(float),  # of rejected ones
        "coef": optional(float),  # of the comparison in the loss
        "sft_coef": optional(float),  # of the chosen ones' negative log-likelihood per token
    })  # fmt: skip


def reward_model() -> ConfigDict:
    """A reward model, trained on pairs: grpo/stages/reward_model.py."""
    return ConfigDict({
        "kind": "reward_model",
        "policy": "base",  # the end of the stage whose weights it begins with, or base
        "preferences": "pairs",  # a name in datasets, or a stage of kind pairs before it
        "lora": lora(),
        "heads": {},  # name -> kinds of pairs that it learns, (): all; {}: one of all
        "objective": "compared",  # or by values: mse, huber, bce
        "margin_coef": 0.0,  # how far the chosen one is to be ahead, per unit of a pair's margin
        "centre": 0.01,  # what holds the sum of a pair's rewards near 0
        "steps": 100,  # optimizer updates
        "batch": 32,  # pairs per update
        "microbatches": 1,
        "max_completion": 48,  # tokens; pairs with longer completions are dropped, never cut
        "held_out": 0.2,  # share of the prompts, for measuring
        "similar": 0.1,  # lengths that differ by this share at most are the same
        "shuffle_labels": False,  # a control: a coin says which completion is the better one
        "optimizer": optimizer(),
        "checkpoint_every": 100,  # updates; the end of a stage is always kept
    })  # fmt: skip


def distill() -> ConfigDict:
    """Training on what a teacher says of each token: grpo/stages/distill.py."""
    return ConfigDict({
        "kind": "distill",
        "data": optional(str),
        "start": optional(str),
        "teacher": "base",  # the end of a stage before it, base, or a name in models
        "lora": lora(),
        "steps": 100,  # optimizer updates
        "batch": 32,  # prompts per update
        "microbatches": 1,
        "max_completion": 48,  # tokens: of a sampled one; longer solutions are dropped, never cut
        "sampling": sampling(),  # of the student's own completions
        "loss": distillation_loss(),
        "optimizer": optimizer(),
        "evaluate_every": 0,  # updates; 0: never
        "checkpoint_every": 100,
    })  # fmt: skip


def distillation_loss() -> ConfigDict:
    """The objective of an update from a teacher: a preset, and in what it is to differ.

    None is what the preset has: grpo/algorithms/presets.py; the formula: distillation.py there.
    """
    return ConfigDict({
        "preset": "gkd",  # gkd, kd
        "beta": optional(float),  # of the divergence: 0 KL(teacher | student), 1 the other way
        "temperature": optional(float),  # of both distributions
        "student_share": optional(float),  # of the updates that learn from own completions
        "coef": optional(float),  # of the divergence, per token
        "sft_coef": optional(float),  # of the solutions' negative log-likelihood per token
        "top_k": optional(int),  # tokens that the teacher tells; 0: the whole vocabulary
    })  # fmt: skip


def grpo() -> ConfigDict:
    """Group relative policy optimization: grpo/stages/grpo.py."""
    return ConfigDict({
        "kind": "grpo",
        "data": optional(str),
        "start": optional(str),
        "lora": lora(),
        "iterations": 100,
        "prompts": 16,  # P, per iteration
        "group": 8,  # G, completions per prompt
        "max_new_tokens": 48,
        "sampling": sampling(),
        "epochs": 1,  # passes over the completions of an iteration
        "minibatches": 1,  # updates per pass
        "microbatches": 1,  # parts in which a minibatch goes through the model
        "dynamic_sampling": "off",  # groups without variance: off, drop, refill
        "max_rounds": 1,  # of sampling in an iteration, under refill
        # Iterations by which a policy may be older than its batch's updates: 0; or 1, where the
        # next batch is sampled while judges read this one.
        "staleness": 0,
        "reference": "start",  # of this stage, or base: the model as loaded
        # The end of a stage before it, base, or a name in models; None: no teacher. With one (and
        # loss.teacher_coef) rewards may be empty.
        "teacher": optional(str),
        "entropy": True,  # is measured
        "rewards": {},  # name -> reward(): grpo/rewards/table.py
        "reward_seconds": 5.0,  # for one call of a reward function; a slower one has failed
        # Processes that call the reward functions, so that one may hang or crash; 0: in the run's
        # own, where it may not. grpo/rewards/pool.py
        "reward_workers": 0,
        "reward_batch_seconds": 300.0,  # for all rewards of a round, in such processes
        "reward_memory": 4096,  # MiB of each
        "max_abstained": 0.5,  # share of an iteration's completions that may be without a reward
        "shuffle_rewards": False,  # a control: each completion has another one's reward
        "curriculum": curriculum(),
        "loss": loss(),
        "optimizer": optimizer(),
        "evaluate_every": 20,  # iterations; 0: never
        "checkpoint_every": 50,  # iterations
        # Of every so many iterations the first update is looked into, 0: of none. docs/metrics.md
        "forecast_every": 0,  # how far each token's change is as the gradient says
        "by_reward_every": 0,  # which part of the gradient each reward function asks for
    })  # fmt: skip


def curriculum() -> ConfigDict:
    """Which examples come first: grpo/data/curriculum.py."""
    return ConfigDict({
        "order": "uniform",  # of examples: uniform, promoted (in buckets), sorted (once)
        "by": "level",  # how hard one is: level, length, operations, pass_rate (a column)
        "buckets": optional(int),  # of about equal size; None: one for each difficulty
        "metric": "right",  # share of right answers; or reward, as a share of its range
        "threshold": 0.6,  # mean of the metric, above which the next bucket comes
        "window": 5,  # iterations that the mean is taken over
        "replay": 0.2,  # share of the prompts that is of earlier buckets
    })  # fmt: skip


def loss() -> ConfigDict:
    """The objective of a policy update: a preset, and the fields in which it is to differ.

    None is what the preset has: grpo/algorithms/presets.py. The formula of each value stands in the
    file of grpo/algorithms/ named below. 0 or "none" switches a feature of the preset off.
    """
    return ConfigDict({
        "preset": "grpo",  # a name in presets.py
        # The advantage: advantages.py
        "baseline": optional(str),  # what a reward is compared with: group, leave_one_out, batch
        "scale": optional(str),  # what divides it: group, batch, advantages, mean, none
        "eps": optional(float),  # added to the scale, in units of the reward
        "decoupled": optional(bool),  # each reward function is normalised apart (GDPO)
        "overlong_buffer": optional(float),  # last share of max_new_tokens that costs; 0: off
        "overlong_penalty": optional(float),  # reward lost at max_new_tokens; 0: off
        "mask_truncated": optional(bool),  # completions that were cut off have no loss
        # Advantage that a token loses per nat by which it is likelier than to the teacher; 0: off
        "teacher_coef": optional(float),
        # The surrogate: ratios.py, surrogates.py
        "ratio": optional(str),  # of probabilities: token, sequence, geometric
        "surrogate": optional(str),  # clip, cispo, sapo, dppo_tv, dppo_kl, reinforce
        "clip_low": optional(float),  # how far below 1 a ratio counts
        "clip_high": optional(float),  # how far above 1
        "dual_clip": optional(float),  # the largest ratio that counts where A < 0; 0: off
        "tau_positive": optional(float),  # steepness of sapo's gate where A > 0, per unit of ratio
        "tau_negative": optional(float),  # elsewhere
        "divergence_limit": optional(float),  # of a token under dppo: probability (tv), nats (kl)
        "aggregation": optional(str),  # over tokens: sequence, token, constant, sum: aggregation.py
        # What holds the policy near the reference: kl.py
        "kl": optional(str),  # estimator: k1, k2, k3
        "kl_in": optional(str),  # what it is added to or taken from: loss, reward
        "kl_coef": optional(float),  # loss or reward per nat; 0: no KL
        "entropy_coef": optional(float),  # loss per nat of entropy, as a bonus; 0: none
        # The sampler's probabilities beside the trainer's: correction.py
        "correction": optional(str),  # of tokens' weights: cap, mask; none: off
        "correction_level": optional(str),  # token, sequence; none: off
        "correction_cap": optional(float),  # largest weight, and 1 / smallest under mask; 0: off
        "off_policy_limit": optional(float),  # mean nats per token, losses.py; 0: off
    })  # fmt: skip


def reward(
    weight: float,
    low: float,
    high: float,
    gate: str | None = None,
    domains: tuple[str, ...] = (),
    **options,
) -> ConfigDict:
    """An entry of a reward table: grpo/rewards/table.py."""
    entry = ConfigDict({
        "weight": weight,  # in the total; 0: only logged, or only a gate
        "low": low,  # the range of the function's values; one outside of it has failed
        "high": high,
        "gate": optional(str),  # the name of another entry that multiplies this one
        "domains": domains,  # of examples, by their field domain, that the entry is for; (): all
        "options": options,  # of the function: its keywords
    })  # fmt: skip
    entry.gate = gate
    return entry


def evaluate() -> ConfigDict:
    """Accuracy on examples: grpo/stages/evaluate.py."""
    return ConfigDict({
        "kind": "evaluate",
        "data": optional(str),  # such as a further dataset() with shots, beside one without
        "split": "test",  # or validation, train
        "policies": ("base",),  # the ends of stages to compare; base: the model as loaded
        # The base once more for each number, in its own chat template, with so many worked
        # examples before each question, such as (0, 4): grpo/data/baselines.py.
        "baselines": (),
        "baseline_prompt": optional(int),  # tokens of the longest prompt of baselines with shots
        "examples": optional(int),  # how many of the split; None: all
        "batch": 100,  # completions at a time
        "max_new_tokens": 48,
        "greedy": True,
        "samples": 0,  # per problem, for mean@n, pass@k and maj@k
        "sampling": decoding(),
        "ks": (1,),
        "shown": 3,  # completions in the report
    })  # fmt: skip


def grade() -> ConfigDict:
    """What judges say of completions: grpo/stages/grade.py."""
    return ConfigDict({
        "kind": "grade",
        "data": optional(str),
        "split": "test",  # or validation, train
        "policies": ("base",),  # the ends of stages to compare; base: the model as loaded
        "examples": optional(int),  # how many of the split; None: all
        "batch": 100,  # completions at a time, to be sampled and to be graded
        "max_new_tokens": 48,
        "sampling": decoding("judge"),
        "judges": ("grader",),  # names in judges, by prompts that ask by a rubric
        "rubrics": ("trace", "answer"),  # in place of the judges' own, a grade for each
        "max_failed": 0.1,  # share of the completions of a policy that may be without a grade
        "shown": 3,  # completions in the report
    })  # fmt: skip


def sweep(**fields) -> ConfigDict:
    """Runs of a config under changes and seeds, with some fields set: grpo/sweeps/cells.py."""
    section = ConfigDict({
        "file": "configs/ablations.py",  # makes the configs: get_config("BASE/NAME+NAME")
        "base": "tiny",  # a file of configs/, perhaps with :variant
        "ablations": ("",),  # names, or several with +; "": the base itself
        "seeds": (0, 1, 2, 3, 4),  # each is added to the seed of the config
        "baseline": "",  # the ablation that the others are compared with
    })  # fmt: skip
    section.update(fields)
    return section
