"""Runs an experiment: python launch.py --config=configs/tiny.py

--config=FILE[:VARIANT]     an experiment of configs/; its fields can be overridden one by one:
                            --config.stages.grpo.loss.kl_coef=0
--workdir=DIRECTORY         where everything is written, by default runs/ and what is asked for;
                            the same command goes on where it was interrupted
--evaluate=PATH             only the config's evaluation, of a checkpoint of a run
                            (runs/tiny/checkpoints/grpo/00000050) or a Hugging Face directory
--on=FILE                   with --evaluate: on all examples of a file, in place of its dataset
--check                     only say whether the config is fine
--preflight                 only say what it asks of its devices, which need not be there:
                            nothing is read and nothing computed
--topology=v5e:2x4          with --preflight: compiles it for such a slice of TPUs, which need not
                            be there either, and says how long it takes; minutes
--hack                      only say what its rewards would pay for completions that are no good
"""

import functools
import logging
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from grpo.checks.arguments import parse, run_name
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.pipeline import FAILED, STAGES, print_errors, run_config
from grpo.reporting.failure import is_one_line, reason_of
from grpo.runs.compile_cache import keep_programs
from grpo.tools.evaluate import only_evaluation
from grpo.tools.hack import hack
from grpo.tools.preflight import preflight, pretend
from grpo.topologies.chips import TopologyError
from grpo.topologies.report import report
from models.checkpoints.files import CheckpointError

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
EVALUATE = flags.DEFINE_string("evaluate", None, "What to evaluate: a path as model.path.")
ON = flags.DEFINE_string("on", None, "With --evaluate: a file of examples.")
CHECK = flags.DEFINE_bool("check", False, "Only say whether the config is fine.")
PREFLIGHT = flags.DEFINE_bool("preflight", False, "Only say what it asks of its devices.")
TOPOLOGY = flags.DEFINE_string("topology", None, "With --preflight: a slice, such as v5e:2x4.")
HACK = flags.DEFINE_bool("hack", False, "Only say what its rewards pay for that is no good.")


def main(argv: list[str]) -> int:
    """Runs, or only checks."""
    config = CONFIG.value.to_dict()
    if PREFLIGHT.value:
        pretend(config)  # before anything looks for devices
    if ON.value and not EVALUATE.value:
        return print_errors([f"--on={ON.value}: names data of --evaluate=PATH, which is missing"])
    if TOPOLOGY.value and not PREFLIGHT.value:
        return print_errors(
            [f"--topology={TOPOLOGY.value}: is read by --preflight, which is missing"]
        )
    if EVALUATE.value and not problems(config, STAGES):
        config = only_evaluation(config, EVALUATE.value, ON.value)
    if CHECK.value or PREFLIGHT.value or HACK.value:
        if wrong := problems(config, STAGES):
            return print_errors(wrong)
        try:
            if TOPOLOGY.value:
                report(config, STAGES, TOPOLOGY.value, functools.partial(print, flush=True))
            lines = preflight(config, STAGES) if PREFLIGHT.value and not TOPOLOGY.value else []
            lines += hack(config) if HACK.value else []
        except (CheckpointError, DataError, TopologyError) as error:
            return print_errors([str(error)])
        if lines or not TOPOLOGY.value:
            print("\n".join(lines or ["the config is fine"]))
        return 0
    workdir = pathlib.Path(WORKDIR.value or f"runs/{run_name(argv)}")
    try:
        return run_config(config, workdir)
    except Exception as error:
        if not is_one_line(error):
            raise
        print_errors([f"{reason_of(error)}; more in {workdir / 'FAILED'}"])
        return FAILED


if __name__ == "__main__":
    # Which backends a machine does not have is no news, nor is every request to a judge.
    for name in ("jax", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    keep_programs()
    app.run(lambda _: sys.exit(main(sys.argv)), flags_parser=parse)
