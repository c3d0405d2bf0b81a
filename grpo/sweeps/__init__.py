"""Sweeps: a config under changes and seeds, each cell a run in a process of its own.

<workdir>/sweep.json           what was asked: base, ablations, seeds, baseline
          cells.jsonl          a row per cell, those that are missing or failed among them
          cells/<name>/        the run of a cell, as launch.py leaves it (grpo/runs/run.py)
          shared/<name>/       the run of stages that several cells begin with
          jobs/<name>/         of either: claims, launches.jsonl, log.txt, asked.json
          submitit/            of jobs that submitit ran: their logs, and its pickles

A name is that of cell and seed with a hash of the config: another config is another directory.

A row of cells.jsonl:

    cell        ablation and seed, as in "no_kl-seed0"; the base is called base
    ablation    its name in the sweep, "" for the base
    seed        as in the sweep: equal seeds share data, prompts and draws, for paired differences
    directory   of the run, below <workdir>
    state       waiting, stopped, done, failed
    reason      why it failed, in a line, or null
    seconds     of all its launches that were seen to end, without those of a shared run
    shared      the directory of the shared run that it began from, or null
    changed     leaf -> value of what differs from the base of the same seed; null: is not there
    stage       its last evaluation stage, or null
    metrics     policy -> metrics of that stage (evaluations/<stage>.json), {} before there are any
"""
