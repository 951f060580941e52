"""What a sweep costs beside the work of its jobs.

    python benchmarks/sweep_overhead.py [--jobs 100]

Jobs of a package of one's own sleep for a given time, in processes from the fork server that a training would have
(torch and lightning imported). Four claims are measured:
  overhead   from asking for a job's process to its end, over the job's own work: at most 0.5 s, also for the last
  steadiness resident memory and time of job 20 equal those of job 1 within 5 %
  packing    8 jobs of 1 s, two at a time: at most 1.25 x the ideal 4 s, from the first start to the last end
  finished   a sweep whose jobs have all finished returns in under 15 s for 100 jobs, interpreter's start included
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

LIMITS = {"overhead": 0.5, "steadiness": 0.05, "packing": 1.25, "finished": 15.0}
_STAGE = """
curriculum: null
upstream: {}
inputs: []
identity_of: {}
call:
  _target_: sleeping_jobs.sleep
  _partial_: true
  milliseconds: ${mock.num_patients}
  fold: ${fold}
  like: [{_target_: lightning.Trainer, _partial_: true}, {_target_: torch.optim.AdamW, _partial_: true}]
"""
_CODE = """
import json, os, resource, time
from medexp.stages.context import Context, Result

def sleep(milliseconds: int, fold: int, like: list, context: Context) -> Result:
    started = time.time()
    time.sleep(milliseconds / 1000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"fold": fold, "started": started, "ended": time.time(), "resident_mib": peak}
    with (context.output_dir / "jobs.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\\n")
    return Result(objective=float(fold))
"""


class Place:
    """A folder with the package, its stage and the output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf" / "stage").mkdir(parents=True)
        (folder / "conf" / "stage" / "11.yaml").write_text(_STAGE)
        (folder / "sleeping_jobs.py").write_text(_CODE)

    def sweep(self, output: str, jobs: int, milliseconds: int, parallel: int) -> float:
        """Run a sweep and return its wall time."""
        line = [
            *(sys.executable, "-m", "medexp.run", "-m", "--config-dir", str(self.folder / "conf")),
            *("dataset=brats", "model.weights=null", "stage=11", f"dataset.num_folds={max(jobs, 2)}"),
            *(f"fold=range({jobs})", f"mock.num_patients={milliseconds}", f"sweep.max_parallel={parallel}"),
            *("tracking.enabled=false", f"output_dir={self.folder / output}"),
        ]
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "MEDEXP_ALLOW_TARGETS": "sleeping_jobs"}
        start = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\n{done.stderr}")
        return time.perf_counter() - start

    def jobs(self, output: str) -> list[dict[str, float]]:
        """Return what the jobs said of themselves, in their order."""
        lines = (self.folder / output / "jobs.jsonl").read_text().splitlines()
        return sorted((json.loads(line) for line in lines), key=lambda job: job["fold"])

    def record(self, output: str) -> list[dict]:
        """Return the sweep's record of its jobs."""
        (path,) = (self.folder / output / "sweeps").glob("*/sweep.json")
        return json.loads(path.read_text())["jobs"]


def overhead_s(place: Place) -> tuple[list[float], list[float], list[float]]:
    """Return per job, one at a time: time beside the work, whole time, and resident memory in MiB."""
    place.sweep("one", 21, 1000, 1)
    said, recorded = place.jobs("one"), place.record("one")
    times = [seconds_of(job["ended"]) - seconds_of(before["ended"]) for before, job in pairwise(recorded)]
    work = [job["ended"] - job["started"] for job in said[1:]]
    beside = [whole - own for whole, own in zip(times, work, strict=True)]
    return beside, times, [job["resident_mib"] for job in said[1:]]


def seconds_of(text: str) -> float:
    """Return a time of the record in seconds."""
    return datetime.fromisoformat(text).timestamp()


def packing(place: Place) -> float:
    """Return the time of eight jobs of one second on two slots over the ideal."""
    place.sweep("eight", 8, 1000, 2)
    recorded = place.record("eight")
    first = min(seconds_of(job["started"]) for job in recorded)
    return (max(seconds_of(job["ended"]) for job in recorded) - first) / 4.0


def main() -> int:
    """Measure and compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        beside, times, resident = overhead_s(place)
        ratio = packing(place)
        first = place.sweep("many", options.jobs, 1, 2)
        again = place.sweep("many", options.jobs, 1, 2)
    drift = max(abs(times[19] / times[0] - 1), abs(resident[19] / resident[0] - 1))
    found = {"overhead": max(beside), "steadiness": drift, "packing": ratio, "finished": again}
    print(f"overhead per job: median {statistics.median(beside):.3f} s, largest {max(beside):.3f} s")
    print(f"job 1: {times[0]:.3f} s, {resident[0]:.1f} MiB; job 20: {times[19]:.3f} s, {resident[19]:.1f} MiB")
    print(f"8 jobs of 1 s, two at a time: {ratio:.3f} x the ideal")
    print(f"{options.jobs} jobs of 0 s: {first:.1f} s; all finished: {again:.1f} s")
    for claim, value in found.items():
        print(f"{claim:<11} {value:6.3f} (at most {LIMITS[claim]})  {'holds' if value <= LIMITS[claim] else 'MISSED'}")
    return int(any(value > LIMITS[claim] for claim, value in found.items()))


if __name__ == "__main__":
    sys.exit(main())
