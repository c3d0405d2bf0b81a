"""A job that is no training run: python tests/fake_cell.py DIRECTORY BEHAVIOUR

    fine     writes four rows, then DONE; a row that is there is not written again
    long     the same with rows for minutes, and code 75 on SIGTERM; goes on where it was
    broken   says why, and ends with code 1
    killed   is ended by SIGKILL, as by a system out of memory
    slow     the same, and takes half a second to save
    deaf     the same, and does not stop
    hanging  writes a row, and then nothing for longer than a test waits
    saved    ends with code 75 by itself, the first three times

Each start appends a line to DIRECTORY/starts, and each end of a whole run one to DIRECTORY/ends.
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time

LONG = {"long": 2000, "slow": 2000, "deaf": 2000}


def append(file: pathlib.Path, text: str) -> None:
    with open(file, "a") as stream:
        stream.write(f"{text}\n")


def end_with_driver() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def stop(number, frame) -> None:
    if behaviour == "deaf":
        (directory / "heard").touch()
        return
    if behaviour == "slow":
        time.sleep(0.5)
    append(directory / "stops", str(os.getpid()))
    os._exit(75)


directory, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
directory.mkdir(parents=True, exist_ok=True)
append(directory / "starts", str(os.getpid()))
signal.signal(signal.SIGTERM, stop)
threading.Thread(target=end_with_driver, daemon=True).start()
if behaviour == "broken":
    (directory / "FAILED").write_text("TroubleError: loss is not finite\n\nmore\n")
    sys.exit(1)
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "saved" and len((directory / "starts").read_text().splitlines()) <= 3:
    sys.exit(75)
metrics = directory / "metrics.jsonl"
rows = metrics.read_text().count("\n") if metrics.exists() else 0
for step in range(rows, LONG.get(behaviour, 4)):
    append(metrics, json.dumps({"stage": "grpo", "iteration": step, "learning_rate": 0.1}))
    time.sleep(0.05)
    if behaviour == "hanging":
        time.sleep(15)
        sys.exit(3)
    if behaviour in ("long", "slow") and (directory / "enough").exists():
        break
(directory / "DONE").write_text("{}")
append(directory / "ends", str(os.getpid()))
