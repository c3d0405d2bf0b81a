"""The model card of an exported policy: README.md of its directory, with front matter for the Hub.

It says what was measured and on how many problems, what the policy was trained from, by what and on
what, how it is asked, how to make it again, and what nobody has shown. A licence that is not known
is said to be missing, never guessed; folders of the machine are left out of it.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grpo.data.templates import Template
from grpo.reporting.evaluations import accuracy_table
from grpo.reporting.model_card_data import UNKNOWN, data
from grpo.reporting.progress import table
from grpo.reporting.summary import measured_on, seconds_of, tables_of, timing_of
from grpo.reporting.text import printable
from grpo.storage.journal import JournalError, read_journal

Config = Mapping[str, Any]
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
AGAIN = """# again.py
import json

from configs import base


def get_config(variant=""):
    with open("run_config.json") as file:
        return base.ConfigDict(json.load(file))
"""
# Of a stage, what a reader looks for first; nested ones by their path.
SETTINGS = (
    "kind", "iterations", "steps", "prompts", "group", "batch", "max_new_tokens", "epochs",
    "minibatches", "sampling.temperature", "lora.rank", "lora.alpha", "lora.targets",
    "loss.preset", "loss.kl", "loss.kl_coef", "loss.clip_low", "loss.clip_high", "loss.aggregation",
    "optimizer.learning_rate", "optimizer.schedule", "optimizer.weight_decay",
    "optimizer.clip_norm", "teacher", "shuffle_rewards",
)  # fmt: skip


class Exported(NamedTuple):
    """What a card is of; without a run there is little to tell."""

    name: str
    to: str  # hf, peft
    dtype: str
    size: str  # in words
    base: str | None  # whose weights it began with: a repository, or what --base says; None: random
    template: Template  # how it was asked
    config: Config | None = None  # of the run
    workdir: pathlib.Path | None = None
    chain: Sequence[str] = ()  # the stages that led to it, its own last
    step: int = 0
    is_final: bool = True


def model_card(policy: Exported) -> str:
    """The card."""
    parts = [
        front_matter(policy),
        f"# {printable(policy.name)}",
        about(policy),
        "## What was measured\n\n" + measured(policy),
        "## How to ask it\n\n" + usage(policy),
        "## How it was trained\n\n" + training(policy),
        "## Data\n\n" + data(policy.config, policy.chain),
        "## Make it again\n\n" + again(policy),
        "## Limits\n\n" + limits(policy),
        "## Licence\n\n" + licence(policy),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(policy: Exported) -> str:
    """What the Hub reads."""
    fields: dict[str, Any] = {"license": "gemma" if policy.base else "other"}
    if policy.base and REPOSITORY.fullmatch(policy.base):
        fields["base_model"] = policy.base
    fields["library_name"] = "peft" if policy.to == "peft" else "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields["tags"] = ["grpo", "gemma"] if policy.chain else ["gemma"]
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def about(policy: Exported) -> str:
    """What this is, in three lines."""
    what = "A PEFT adapter for a model of" if policy.to == "peft" else "A model of"
    begun = f"the weights of {printable(policy.base)}" if policy.base else "random weights"
    lines = [f"{what} {policy.size}, in {policy.dtype}. It began with {begun}."]
    if policy.chain:
        end = "the end" if policy.is_final else "not the end"
        lines.append(f"It is stage `{policy.chain[-1]}` at update {policy.step}, {end} of that "
                     f"stage, after {' -> '.join(policy.chain)}.")  # fmt: skip
    return "\n".join(lines)


def measured(policy: Exported) -> str:
    """The tables of the run's evaluations that this policy, or its stage, is in."""
    if policy.config is None or policy.workdir is None:
        return "Nothing: it was exported from weights, not from a run."
    stage, parts = policy.chain[-1], []
    for name in policy.config["pipeline"]:
        file = policy.workdir / "evaluations" / f"{name}.json"
        if not file.is_file():
            continue
        results = json.loads(file.read_text("utf-8"))
        if stage not in results:
            continue
        problems = {found["problems"] for found in results.values() if "problems" in found}
        heading = f"`{name}`, " + ", ".join(f"{n} problems" for n in sorted(problems))
        tables = [accuracy_table(results, seconds_of(timing_of(policy.workdir)))]
        tables += tables_of(policy.config["stages"][name], results)
        parts += [heading + ".", measured_on(policy.config, name), *tables]
    if not parts:
        return f"Nothing: no evaluation of the run has `{stage}` in it."
    if not policy.is_final:
        parts.insert(0, f"**These are of the end of `{stage}`, which this export is not.**")
    note = (
        "Intervals are 95 % ones over problems (Wilson), for one seed: other seeds vary more. "
        "`right` is greedy, in the exact form, unless no greedy completions were made."
    )
    return "\n\n".join([part for part in parts if part] + [note])


def usage(policy: Exported) -> str:
    """The conversation that it was trained to answer, as code."""
    instruction, model_line = policy.template["instruction"], policy.template["model_line"]
    content = f"{json.dumps(instruction)} + '\\n\\n' + question" if instruction else "question"
    load = ["model = AutoModelForCausalLM.from_pretrained(path)"]
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if policy.to == "peft":
        imports = ("from peft import AutoPeftModelForCausalLM\nfrom transformers import "
                   "AutoTokenizer")  # fmt: skip
        load = ["model = AutoPeftModelForCausalLM.from_pretrained(path)"]
    code = [
        imports,
        "",
        'path, question = ".", "..."',
        "tokenizer = AutoTokenizer.from_pretrained(path)",
        *load,
        f'messages = [{{"role": "user", "content": {content}}}]',
        "ids = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "out = model.generate(**ids, max_new_tokens=256, do_sample=False)",
        "print(tokenizer.decode(out[0, ids['input_ids'].shape[1]:]))",
    ]
    said = "It was trained on questions in this form; asked otherwise it may answer otherwise."
    lines = [said, "", "```python", *code, "```"]
    if model_line != "model\n":
        lines += [
            "",
            f"Its turn began with {json.dumps(model_line)} after `<start_of_turn>`, where the chat "
            'template writes "model\\n".',
        ]
    return "\n".join(lines)


def training(policy: Exported) -> str:
    """The main settings of the stages, a column each."""
    if policy.config is None:
        return "Not here: see where the weights are from."
    stages = [policy.config["stages"][name] for name in policy.chain]
    lines = []
    for setting in SETTINGS:
        values = [value_at(stage, setting) for stage in stages]
        if setting.startswith("lora."):  # without a rank all parameters are trained
            ranks = [value_at(stage, "lora.rank") for stage in stages]
            values = [None if r is None else x for x, r in zip(values, ranks, strict=True)]
        if any(value is not None for value in values):
            lines.append([setting, *("" if x is None else str(x) for x in values)])
    rewards = [
        f"- `{stage}`: " + ", ".join(
            f"{name} x {entry['weight']:g}" for name, entry in found.items()
        )
        for stage in policy.chain
        if (found := policy.config["stages"][stage].get("rewards"))
    ]  # fmt: skip
    text = [table(["setting", *policy.chain], lines), f"Seed {policy.config['seed']}."]
    return "\n\n".join(text + (["Rewards:\n\n" + "\n".join(rewards)] if rewards else []))


def value_at(stage: Config, path: str) -> Any:
    """A field of a stage, None where it has none."""
    value: Any = stage
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def again(policy: Exported) -> str:
    """The commit, and the config that the run had."""
    if policy.config is None or policy.workdir is None:
        return "`python -m grpo.tools.export` of the weights that it began with."
    try:
        last = read_journal(policy.workdir / "environment.jsonl")[-1]
    except (OSError, IndexError, JournalError):
        last = {}
    changed = " (with changes that were not committed)" if last.get("changed") else ""
    on = ", ".join(f"{x} {last[x]}" for x in ("python", "jax", "devices", "processor", "cores")
                   if last.get(x))  # fmt: skip
    where = "With the code of the run"
    if last.get("commit"):
        where = f"At commit `{last['commit']}`{changed} of gemma-grpo"
    return (
        f"{where}, with the run's own config: `run_config.json` here, without folders.\n\n"
        f"```python\n{AGAIN}```\n\n`python launch.py --config=again.py`. It ran on "
        f"{on or 'a machine that it does not name'}; equal bits need an equal machine, with as "
        "many cores."
    )


def limits(policy: Exported) -> str:
    """What nobody has shown."""
    lines = [
        "- The numbers above are of one run and of the problems that are named; they say nothing "
        "of others.",
        "- A reward for right answers makes reasoning that leads there likelier, not reasoning "
        "that is true: a fluent wrong answer sounds as a right one does.",
        "- Nothing was done for safety beyond what the base has, and training may have undone some "
        "of that. Do not act on its answers unchecked.",
        f"- Weights are in {policy.dtype}; another precision, quantisation or runtime gives other "
        "logits, and now and then other tokens.",
    ]
    if policy.base is None:
        lines.insert(0, "- It began with random weights: it knows the world it was trained on and "
                     "nothing else, no language included.")  # fmt: skip
    return "\n".join(lines)


def licence(policy: Exported) -> str:
    """Whose terms hold."""
    if policy.base is None:
        return "The weights are the trainer's own. " + UNKNOWN
    return (f"{TERMS}. The weights were modified, as said above. `NOTICE` is the notice that these "
            "terms ask for wherever the model is passed on.")  # fmt: skip
