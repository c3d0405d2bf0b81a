"""Which equalities hold on this machine, for a paper: python -m grpo.tools.certificate --help

    python -m grpo.tools.certificate --config=configs/tiny.py --write=certificates/tiny

--config=FILE[:VARIANT]   the experiment, as for launch.py; a full-size one in its :tiny
--stage=NAME              a stage that trains; without it the first GRPO stage, or the first of all
--updates=2               iterations of it
--before=100              updates of each stage before it, at most
--start=RUN               or a run that has them
--microbatches=1,2,4      cuts of a batch; those that do not divide it are left out
--meshes=2x1,1x2,2x2      fsdp x tp, on virtual devices of the CPU, each in a process of its own
--write=DIRECTORY         certificate.md and certificate.json

What runs is said in grpo/certificates/variants.py, what is compared in compare.py, and what counts
as equal in certify.py. Exit code 1 where an equality that is promised does not hold. Everything is
on the CPU; two processes that train together are not yet possible, and so no line of it.
"""

import logging
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from grpo.certificates.certify import (
    BROKEN,
    CertificateError,
    Line,
    certify,
    in_process_of_its_own,
    start_from,
)
from grpo.certificates.variants import Variant, cut, variants
from grpo.checks.arguments import end, parse
from grpo.checks.devices import about_devices
from grpo.checks.problems import problems
from grpo.pipeline import STAGES, print_errors, with_presets
from grpo.reporting.progress import table
from grpo.runs.policies import trains
from grpo.runs.run import checkpoints_of
from grpo.storage.manifest import write_json
from grpo.storage.snapshot import read_about

Config = Mapping[str, Any]


def define() -> None:
    """The flags."""
    config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
    flags.DEFINE_string("stage", None, "A stage that trains; without it the first GRPO stage.")
    flags.DEFINE_integer("updates", 2, "Iterations of it.", 1, 100)
    flags.DEFINE_integer("before", 100, "Updates of each stage before it, at most.", 1)
    flags.DEFINE_string("start", None, "A run that has the stages before.")
    flags.DEFINE_list("microbatches", ["1", "2", "4"], "Cuts of a batch.")
    flags.DEFINE_list("meshes", ["2x1", "1x2", "2x2"], "fsdp x tp.")
    flags.DEFINE_string("write", None, "A directory for certificate.md and certificate.json.")


def stage_of(config: Config, named: str | None) -> str:
    """The stage whose updates are certified."""
    stages = config["stages"]
    known = [name for name in config["pipeline"] if trains(stages[name])]
    if not known:
        end("no stage of the pipeline trains")
    if named is not None and named not in known:
        end(f"--stage={named}: trains nothing in the pipeline; expected {', '.join(known)}")
    grpo = [name for name in known if stages[name]["kind"] == "grpo"]
    return named or (grpo or known)[0]


def numbers_of(flag: str, texts: list[str], count: int) -> list[tuple[int, ...]]:
    """What a list of numbers joined by x says."""
    found = [tuple(int(n) for n in text.split("x") if n.isdecimal()) for text in texts]
    if any(len(one) != count or min(one) < 1 or max(one) > 512 for one in found):
        end(f"--{flag}={','.join(texts)}: expected {'numbers' if count == 1 else 'such as 2x1'}")
    return found


def possible(every: Iterator[Variant], left_out: list[str]) -> Iterator[Variant]:
    """Those whose config is fine, whatever devices are here; the others are named."""
    for variant in every:
        here = {**variant.config, "mesh": {"fsdp": 1, "tp": 1}}
        mesh, stage = variant.config["mesh"], variant.config["pipeline"][-1]
        wrong = problems(here, STAGES) + wrong_mesh(variant.config, stage)
        if wrong:
            left_out.append(f"{variant.name}: left out: {wrong[0]}")
        else:
            yield variant._replace(config={**variant.config, "mesh": mesh})


def wrong_mesh(config: Config, name: str) -> list[str]:
    """What is wrong with a mesh, but for devices that another process will have."""
    stage = config["stages"][name]
    cuts = [line for line in about_devices(config) if "does not divide" in line]
    return [*cuts, *STAGES[stage["kind"]].check(stage, config)]


def shown(lines: list[Line]) -> str:
    """The table."""
    rows = []
    for line in lines:
        found = line.found
        tokens = f"{found.rows_same} of {found.rows}" if found.rows else ""
        if found.first:
            tokens += f"; {found.first}"
        rows.append([
            line.name, line.beside, tokens, size(found.logprobs), size(found.loss_first),
            size(found.gradient), size(found.parameters), size(found.relative),
            "bits" if line.exact else "1e-5", line.verdict,
        ])  # fmt: skip
    header = ["variant", "beside", "rows with equal tokens", "log-probs", "loss", "gradient",
              "parameters", "of the way", "promised", ""]  # fmt: skip
    return table(header, rows)


def size(value: float) -> str:
    """A difference; 0 is exact."""
    return "0" if value == 0 else f"{value:.1e}"


def page(asked: Mapping[str, Any], environment: Config, lines: list[Line], more: list[str]) -> str:
    """certificate.md."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in environment.items())
    what = "\n".join(f"| {name} | {value} |" for name, value in asked.items())
    notes = "\n".join(f"- {line}" for line in more)
    return f"""# Certificate

| | |
|---|---|
{what}

{shown(lines)}

Largest absolute differences of log-probs (first iteration) and of parameters (at the end); of the
loss, and relative of the gradient, at the first update; "of the way" is the distance of the end
points as a share of all that the updates moved.

{notes}

| environment | |
|---|---|
{facts}
"""


def require_ends(start: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Refuses a run in which a stage before the last one has not come to its end."""
    for name in config["pipeline"][:-1]:
        if trains(config["stages"][name]):
            checkpoints = checkpoints_of(config, start, name)
            steps = checkpoints.steps()
            if not steps or not read_about(checkpoints.path(steps[-1])).final:
                end(f"--start={start}: has no final checkpoint of {name}")


def main(argv: list[str]) -> int:
    """From the command line."""
    given: Any = flags.FLAGS.flag_values_dict()
    whole = given["config"].to_dict()
    one = {**whole, "mesh": {"fsdp": 1, "tp": 1}, "meshes": {}}
    if wrong := problems(one, STAGES):
        return print_errors(wrong)
    name = stage_of(whole, given["stage"])
    few = 1 if given["start"] else given["before"]  # what a run has left is not trained further
    config = with_presets(cut(whole, name, given["updates"], few))
    if given["start"]:
        require_ends(pathlib.Path(given["start"]), config)
    microbatches = [n for (n,) in numbers_of("microbatches", given["microbatches"], 1)]
    meshes = [(n[0], n[1]) for n in numbers_of("meshes", given["meshes"], 2)]
    more: list[str] = []
    every = possible(variants(config, name, microbatches, meshes), more)
    with tempfile.TemporaryDirectory() as scratch:
        folder, run = pathlib.Path(scratch), in_process_of_its_own
        try:
            start = given["start"]
            start = pathlib.Path(start) if start else start_from(config, name, folder, run)
            lines, environment = certify(
                every, name, folder, start, run=run, say=lambda x: print(x, file=sys.stderr)
            )
        except CertificateError as error:
            return print_errors([str(error)])
    more.append("two processes that train together: not yet possible")
    asked = {"config": next(w for w in argv if w.lstrip("-").startswith("config=")),
             "stage": name, "iterations": given["updates"]}  # fmt: skip
    text = page(asked, environment, lines, more)
    print(text)
    if given["write"]:
        out = pathlib.Path(given["write"])
        out.mkdir(parents=True, exist_ok=True)
        (out / "certificate.md").write_text(text, "utf-8")
        rows = [{**line._asdict(), "found": line.found._asdict()} for line in lines]
        facts = {"lines": rows, "notes": more, "environment": dict(environment)}
        write_json(out / "certificate.json", {**asked, **facts})
    return int(any(line.verdict == BROKEN for line in lines))


if __name__ == "__main__":
    define()
    logging.getLogger("jax").setLevel(logging.WARNING)
    app.run(lambda argv: sys.exit(main(sys.argv)), flags_parser=parse)
