"""What promises cost: a checkpoint with its digest over `torch.save` and fsync, a logged step over a silent one.

    python benchmarks/checkpoint.py [--gib 0.5] [--rounds 9] [--steps 1500]

Both ways of each comparison take turns in one process; medians and quartiles. Every save goes into a new file while the
one before is still there, as in training: memory that the system has to find anew for its cache costs more than the
saving itself, and must cost both. Targets: at most 1 s per GiB over
`torch.save` and fsync of the same state (finite weights checked, SHA-256, sidecar, both names durable); at most 1 ms
per step for ledger and tracking together with every step logged, MLflow's background thread and its final transfer
included.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from medexp.callbacks.checkpoint_files import AtomicCheckpointIO
from medexp.runs.ledger import Run
from medexp.tracking import Tracker

LIMIT_S_PER_GIB, LIMIT_MS_PER_STEP = 1.0, 1.0


def state_of(gib: float) -> dict[str, dict[str, torch.Tensor]]:
    """Return tensors of 64 MiB, as a large network and its optimizer have."""
    number = max(1, round(gib * 16))
    return {"state_dict": {f"weight{index}": torch.randn(1 << 24) for index in range(number)}}


def plain_s(state: object, path: Path) -> float:
    """Return the time of `torch.save` and fsync."""
    start = time.perf_counter()
    with path.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    return time.perf_counter() - start


def ours_s(state: dict[str, dict[str, torch.Tensor]], path: Path) -> float:
    """Return the time of medexp's way."""
    start = time.perf_counter()
    AtomicCheckpointIO().save_checkpoint(state, path)
    return time.perf_counter() - start


def checkpoint_costs(gib: float, rounds: int) -> bool:
    state, pairs = state_of(gib), []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(rounds + 2):
            paths = [Path(name) / f"{way}-{turn:08d}.ckpt" for way in ("plain", "ours")]
            pair = (plain_s(state, paths[0]), ours_s(state, paths[1]))
            if turn > 1:  # the first two turns find their memory
                pairs.append(pair)
            for path in Path(name).glob(f"*-{turn - 1:08d}.ckpt*"):
                path.unlink()
    plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    low, extra, high = statistics.quantiles([(b - a) / gib for a, b in pairs], n=4)
    print(f"checkpoint of {gib:g} GiB: torch.save and fsync {plain:.2f} s, with digest {ours:.2f} s")
    print(f"  {extra:.2f} s per GiB more (quartiles {low:.2f} and {high:.2f}; at most {LIMIT_S_PER_GIB:g})")
    return extra <= LIMIT_S_PER_GIB


def steps_s(steps: int, log: Callable[[int], None]) -> float:
    """Return the time of steps of about 5 ms, each logged."""
    matrix = torch.randn(256, 256)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        for _ in range(8):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        log(step)
    return time.perf_counter() - start


def tracked_s(steps: int, folder: Path) -> float:
    """Return the same with ledger, MLflow and the final transfer."""
    run = Run(folder, {"identity": "0" * 64})
    folder.mkdir()
    tracker = Tracker(
        run, output_dir=folder.parent, uri=None, experiment="benchmark", enabled=True, strict=False, flush_every_s=5.0
    )
    values = {"train/loss": 0.5, "train/gradient_norm": 1.5, "lr": 1e-3}
    start = time.perf_counter()
    steps_s(steps, lambda step: tracker.log_metrics(values, step))
    tracker.finish("FINISHED")
    run.release()
    return time.perf_counter() - start


def logging_costs(steps: int, rounds: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        tracked_s(10, Path(name) / "warm")  # imports MLflow and makes the database
        pairs = [
            (steps_s(steps, lambda step: None), tracked_s(steps, Path(name) / f"run{number}"))
            for number in range(rounds)
        ]
    extra = statistics.median(b - a for a, b in pairs) / steps * 1e3
    silent = statistics.median(a for a, _ in pairs) / steps * 1e3
    print(f"a step of {silent:.2f} ms: {extra:.3f} ms more with every step logged (at most {LIMIT_MS_PER_STEP:g})")
    return extra <= LIMIT_MS_PER_STEP


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    held = [checkpoint_costs(given.gib, given.rounds), logging_costs(given.steps, min(given.rounds, 3))]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
