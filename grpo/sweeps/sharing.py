"""Which work of a sweep is done once: first stages, of cells that do not differ before their end.

    cut(c, k) = the config c with the first k stages of its pipeline, and no others
    cells that have the same cut(c, k) may begin from one run of it

What a stage reads of a config is all but the sections of other stages, so that everything else must
be equal: seed, model, data, judges, evaluation and the rest, whether the first stages read it or
not. A cut that is no config of its own, as where a judge is a later stage, is not run apart. Where
all cells of a cut also share a longer one, the longer one is run; it may itself begin from a
shorter one that more cells have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.sweeps.cells import Cell, Config, faults_of, hash_of
from grpo.sweeps.jobs import Job


def cut(config: Config, count: int) -> dict[str, Any]:
    """The config of a run that ends after so many stages."""
    pipeline = tuple(config["pipeline"][:count])
    return {
        **config,
        "pipeline": pipeline,
        "stages": {name: config["stages"][name] for name in pipeline},
    }


def jobs_of(cells: Sequence[Cell]) -> dict[str, Job]:
    """The jobs of a sweep by name: its cells, and the runs that they begin from."""
    configs: dict[str, Config] = {}  # of cuts, by hash
    users: dict[str, set[str]] = {}  # the cells of a cut
    chains: dict[str, list[str]] = {}  # the cuts of a cell, the shortest first
    seeds: dict[str, int] = {}
    for cell in cells:
        chain = chains[cell.name] = []
        for count in range(1, len(cell.config["pipeline"])):
            config = cut(cell.config, count)
            key = hash_of(config)
            chain.append(key)
            configs[key], seeds[key] = config, cell.seed
            users.setdefault(key, set()).add(cell.name)
    shared = chosen(chains, users, configs)
    jobs = {}
    for cell in cells:
        before = [key for key in chains[cell.name] if key in shared]
        names = [None, *(shared_name(configs[key], seeds[key]) for key in before)]
        for key, name, parent in zip(before, names[1:], names[:-1], strict=True):
            jobs[str(name)] = Job(str(name), f"shared/{name}", configs[key], parent)
        jobs[cell.name] = Job(cell.name, f"cells/{cell.name}", cell.config, names[-1])
    return jobs


def chosen(
    chains: Mapping[str, list[str]], users: Mapping[str, set[str]], configs: Mapping[str, Config]
) -> set[str]:
    """The cuts that are run once: of several cells, and none longer is of the same ones."""
    found = set()
    for chain in chains.values():
        cells_after: set[str] = set()  # of the longer cut that was chosen last
        for key in reversed(chain):
            is_one = len(users[key]) > 1 and users[key] != cells_after
            if is_one and (key in found or not faults_of(configs[key])):
                found.add(key)
                cells_after = users[key]
    return found


def shared_name(config: Config, seed: int) -> str:
    """The name of a shared run: its stages, the sweep's seed, its hash."""
    return f"{'+'.join(config['pipeline'])}-seed{seed}-{hash_of(config)}"
