"""A policy for other programs: a Hugging Face directory or a PEFT adapter, with its model card.

    python -m grpo.tools.export runs/tiny --output=exported/tiny
    python -m grpo.tools.export runs/NAME --policy=grpo --to=peft --output=exported/adapter
    python -m grpo.tools.export runs/NAME/checkpoints/grpo/00000050 --output=exported/earlier
    HF_TOKEN=... python -m grpo.tools.export runs/NAME --output=exported/NAME --push=owner/name

Of a run it takes the end of a stage (--policy, else the last one that trains a policy), of a
checkpoint what it names, of anything else the weights. In the directory are then the weights (an
adapter merged, or alone), the tokenizer with its chat template, README.md (the card), the run's
config, export.json (how it was asked, for grpo.tools.chat), and NOTICE where Gemma's terms hold. An
adapter that does not stand on published weights has those that it stands on in `base/`.

Refused, in one line: what is not there, not whole or not finished, and a directory with something
in it. --push needs a token in HF_TOKEN, and uploads what lies there then.
"""

import argparse
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import huggingface_hub

from grpo.checks.arguments import command_line, end
from grpo.data.datasets import section_of
from grpo.data.templates import TEMPLATES, Template
from grpo.reporting.evaluations import last_policy
from grpo.reporting.model_card import REPOSITORY, TERMS, Exported, model_card
from grpo.reporting.model_card_data import shown_path
from grpo.runs.open_policy import former, is_checkpoint, merged_as, run_of
from grpo.runs.policies import Policies, lora_of, trains
from grpo.runs.run import checkpoints_of
from grpo.storage.snapshot import SnapshotError, read_about
from models.checkpoints.files import CheckpointError, whole_directory, write_json
from models.checkpoints.hf import write_tokenizer
from models.loading import load_model, save_adapter, save_hf
from models.policy import Policy

ABOUT = "export.json"
LOCAL = re.compile(r"[/~.]")  # how a path of this machine begins


class ExportError(ValueError):
    """What cannot be exported; one line."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    about = "A Hugging Face directory or a PEFT adapter, with its model card."
    flags = command_line("export", about)
    add = flags.add_argument
    add("path", help="a run, one of its checkpoints, a directory, a .gguf file, a package")
    add("--to", choices=("hf", "peft"), default="hf", help="merged, or the adapter alone")
    add("--output", required=True, type=pathlib.Path, help="a directory that is not there yet")
    add("--policy", help="the stage whose end it is, of a run")
    add("--dtype", choices=("float32", "bfloat16"), help="of the weights; without it the stored")
    add("--base", help="what the card and an adapter name as the base: owner/name")
    add("--push", metavar="OWNER/NAME", help="also uploads it; the token is that of HF_TOKEN")
    add("--public", action="store_true", help="a repository that is made for it is public")
    return flags


def checkpoint_of(path: pathlib.Path, wanted: str | None) -> pathlib.Path:
    """The final checkpoint of a run's stage."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
        stages = {name: config["stages"][name] for name in config["pipeline"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ExportError(f"{path}: its config.json is not that of a run") from None
    names = [name for name, stage in stages.items() if trains(stage)]
    if wanted is not None and wanted not in names:
        raise ExportError(f"--policy={wanted}: the run trains {', '.join(names) or 'no policy'}")
    if not names:
        raise ExportError(f"{path}: no stage of the run trains a policy")
    # The control of a pipeline may come last, so what evaluations know is asked first.
    name = wanted or last_policy(stages, names)
    checkpoints = checkpoints_of(config, path, name)
    if not (steps := checkpoints.steps()):
        raise ExportError(f"{path}: stage {name} has left no checkpoint")
    found = checkpoints.path(steps[-1])
    if not read_about(found).final:
        raise ExportError(
            f"{path}: stage {name} has not finished, its newest checkpoint is {found}: name that"
        )
    return found


def chain_of(policies: Policies, stage: str) -> list[str]:
    """The stages that led to one, that one last."""
    found = [stage]
    while (before := policies.predecessor(found[0])) != "base":
        found.insert(0, before)
    return found


def stands_on(policies: Policies, chain: list[str]) -> bool:
    """Whether an adapter stands on the model as loaded, not on what a stage before it left."""
    stages = policies.config["stages"]
    return len({lora_of(stages[name]["lora"]) for name in chain}) == 1


def base_of(config: Mapping[str, Any]) -> str | None:
    """Whose weights a run began with, through the runs before it; None: random ones."""
    path = config["model"]["path"]
    while path is not None and is_checkpoint(path):
        path = run_of(pathlib.Path(path))[0]["model"]["path"]
    return None if path is None else name_of(path)


def name_of(path: str) -> str:
    """A repository or package as it is called, of what lies here the last part."""
    return pathlib.Path(path).name if pathlib.Path(path).exists() else shown_path(path)


def opened(flags: argparse.Namespace) -> tuple[Policy, Exported, bool]:
    """The policy, what its card is to say, and whether its adapter stands on published weights."""
    path = pathlib.Path(flags.path)
    is_run = (path / "checkpoints").is_dir()
    if flags.policy and not is_run:
        raise ExportError(f"--policy={flags.policy}: {path} is not a run with several of them")
    if is_run or is_checkpoint(path):
        return of_a_run(checkpoint_of(path, flags.policy) if is_run else path, flags)
    if LOCAL.match(flags.path) and not path.exists():
        raise ExportError(f"{path}: there is no such run, checkpoint or directory")
    policy = load_model(flags.path, dtype=flags.dtype)
    base = flags.base or name_of(flags.path)
    return policy, card_of(policy, flags, base, TEMPLATES["plain"]), True


def of_a_run(checkpoint: pathlib.Path, flags: argparse.Namespace) -> tuple[Policy, Exported, bool]:
    """The same of a run's checkpoint."""
    policies, stage = former(checkpoint, None)
    config = policies.config
    if not trains(config["stages"][stage]):
        raise ExportError(f"{checkpoint}: stage {stage} trains no policy")
    about, chain = read_about(checkpoint), chain_of(policies, stage)
    policy, base = policies.at(stage, checkpoint), base_of(config)
    if flags.dtype and flags.to == "hf":
        policy = merged_as(policy, flags.dtype)
    if base is not None:
        base = flags.base or base
    is_published = (
        bool(base and REPOSITORY.fullmatch(base))
        and not is_checkpoint(config["model"]["path"])
        and stands_on(policies, chain)
    )
    section = section_of(config, config["stages"][stage].get("data"))
    card = card_of(policy, flags, base, TEMPLATES[section["template"]])._replace(
        config=config, workdir=policies.workdir, chain=chain, step=about.step,
        is_final=about.final,
    )  # fmt: skip
    return policy, card, is_published


def card_of(
    policy: Policy, flags: argparse.Namespace, base: str | None, template: Template
) -> Exported:
    """What there is to say of any weights."""
    config = policy.config
    size = f"{config.family}, {config.num_layers} layers, width {config.width}, "
    size += f"{config.vocab_size} pieces"
    return Exported(
        name=flags.output.name, to=flags.to, dtype=policy.param_dtype.name, size=size, base=base,
        template=template,
    )  # fmt: skip


def write(policy: Policy, card: Exported, is_published: bool, output: pathlib.Path) -> None:
    """The directory; it appears whole or not at all."""
    if card.to == "peft" and policy.adapter is None:
        raise ExportError("--to=peft: this policy has no adapter, all its parameters were trained")
    with whole_directory(output) as tmp:
        if card.to == "hf":
            save_hf(policy, tmp)
        elif is_published:
            save_adapter(policy, tmp, base=card.base)
        else:
            save_adapter(policy, tmp, base="base")  # beside it
            save_hf(policy.base(), tmp / "base")
        if card.to == "peft" and policy.tokenizer is not None:
            write_tokenizer(tmp, policy.tokenizer)
        (tmp / "README.md").write_text(model_card(card), "utf-8")
        template = {name: card.template[name] for name in ("instruction", "model_line")}
        write_json(tmp / ABOUT, {"template": template, "stage": (*card.chain, None)[-1]})
        if card.config is not None:
            write_json(tmp / "run_config.json", without_folders(card.config))
        if card.base is not None:
            (tmp / "NOTICE").write_text(f"{TERMS}\n", "utf-8")


def without_folders(config: Any) -> Any:
    """A config whose paths name no folder of this machine."""
    if isinstance(config, Mapping):
        return {name: without_folders(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [without_folders(value) for value in config]
    if isinstance(config, str) and config.startswith(("/", "~")):
        return shown_path(config)
    return config


def push(output: pathlib.Path, repository: str, token: str, public: bool) -> str:
    """Uploads a directory; where it lies then."""
    hub = huggingface_hub.HfApi(token=token)
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        hub.upload_folder(folder_path=str(output), repo_id=repository)
    except Exception as error:  # of the Hub and its HTTP client
        said = " ".join(str(error).replace(token, "...").split())
        raise ExportError(f"--push={repository}: {said[:300]}; it lies in {output}") from None
    return f"https://huggingface.co/{repository}"


def export(flags: argparse.Namespace) -> None:
    """Exports, and says what lies where."""
    token = os.environ.get("HF_TOKEN", "")
    if flags.push and not REPOSITORY.fullmatch(flags.push):
        raise ExportError(f"--push={flags.push}: expected owner/name")
    if flags.push and not token:
        raise ExportError("--push: needs a token that may write, in HF_TOKEN")
    policy, card, is_published = opened(flags)
    write(policy, card, is_published, flags.output)
    print(f"{flags.output}: {card.size}, {card.dtype}")
    for file in sorted(path for path in flags.output.rglob("*") if path.is_file()):
        print(f"  {file.relative_to(flags.output)}  {file.stat().st_size:,} bytes")
    if flags.push:
        print(push(flags.output, flags.push, token, flags.public))


def main() -> None:
    """From the command line."""
    flags = parser().parse_args()
    try:
        export(flags)
    except (ExportError, CheckpointError, SnapshotError) as error:
        end(" ".join(str(error).split()))
    except (ValueError, OSError) as error:  # of models and file systems
        end(f"{flags.path}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
