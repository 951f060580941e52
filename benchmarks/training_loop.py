"""What a training step costs beyond the bare PyTorch loop with everything on, and how long it waits for data.

    python benchmarks/training_loop.py [--steps 500] [--rounds 6] [--skip-loader]

Three loops take the same steps of the same small network in turns, in one process: a bare PyTorch loop, plain
Lightning, and the `fit` stage with all callbacks, JSON lines and MLflow (SQLite) at every step. Targets: at most
3 ms per step over the bare loop, of which at most 1 ms over plain Lightning. The first 100 steps are not timed: what
the start of a run costs (MLflow's run, parameters and tags) is not a step's. The shortest turn of each loop counts, as
in timeit: what another program takes away only ever adds. The medians of the differences within a turn stand beside it.
Wall time is that of an idle machine; processor time includes the thread that sends to MLflow.

Then a synthetic BraTS cohort trains on patches of 96^3 with two loader processes on the CPU. Target: less than 5 %
of the training time is spent waiting for the loader.
"""

import argparse
import csv
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medexp.callbacks.checkpoints import BestCheckpoints, LastCheckpoint, RegularCheckpoints
from medexp.callbacks.early_stopping import EarlyStopping
from medexp.callbacks.ema import ExponentialMovingAverage
from medexp.callbacks.examples import ExamplePictures
from medexp.callbacks.guards import FiniteGuard, FrozenGuard
from medexp.callbacks.progress import Progress
from medexp.callbacks.resources import Resources
from medexp.runs.ledger import Run
from medexp.stages.context import Context
from medexp.stages.fit import fit
from medexp.tracking import Tracker, prepare_database
from medexp.tracking.mirror import database_uri

LIMIT_MS, LIMIT_OVER_LIGHTNING_MS, LIMIT_WAIT_PERCENT, CLIP = 3.0, 1.0, 5.0, 12.0
START = 100  # steps before the clock starts


class Network(nn.Sequential):
    """Twelve small convolutions: about 20 ms per step on one core, with the parameter list of a real network."""

    def __init__(self, width: int = 8) -> None:
        layers: list[nn.Module] = [nn.Conv3d(1, width, 3, padding=1)]
        for _ in range(10):
            layers += [nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(), nn.Conv3d(width, width, 3, padding=1)]
        super().__init__(*layers, nn.Conv3d(width, 2, 1))


class Model(LightningModule):
    """The network with its loss and optimizer."""

    def __init__(self, *, contract: object = None, phase: str = "", weights: object = None) -> None:
        super().__init__()
        self.network = Network()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Log the loss as a real model does."""
        loss = nn.functional.cross_entropy(self.network(batch["image"]), batch["label"])
        self.log("train/loss", loss.detach(), batch_size=1)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Score something."""
        prediction = self.network(batch["image"]).argmax(1)
        self.log("val/dice/mean", (prediction == batch["label"]).float().mean(), batch_size=1)
        return {"prediction": prediction}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what the bare loop uses."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Loader:
    """The same batches again and again."""

    def __init__(self, size: int, steps: int) -> None:
        image = torch.randn(1, 1, size, size, size)
        self.batch = {"image": image, "label": (image[:, 0] > 0).long(), "case": ["case"]}
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from (self.batch for _ in range(self.steps))


class Data:
    """What `fit` asks of a datamodule."""

    contract = None

    def __init__(self, size: int, steps: int) -> None:
        self.size, self.steps = size, steps

    def open(self, *_: object, **__: object) -> None:
        """There is nothing to open."""

    def train_dataloader(self) -> Loader:
        """Return the training batches."""
        return Loader(self.size, self.steps)

    def val_dataloader(self) -> Loader:
        """Return one validation volume."""
        return Loader(self.size, 1)


Cost = tuple[float, float]  # wall and processor time per step, in seconds


def clocks() -> Cost:
    """Return both clocks."""
    return time.perf_counter(), time.process_time()


def since(start: Cost, steps: int) -> Cost:
    """Return what has passed per step of an epoch after its first `START`."""
    wall, processor = clocks()
    return (wall - start[0]) / (steps - START), (processor - start[1]) / (steps - START)


def bare(data: Data) -> Callable[[], Cost]:
    """Return a bare loop: forward, backward, clip, step, and reading the loss."""
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def run() -> Cost:
        loader = data.train_dataloader()
        for number, batch in enumerate(loader):
            if number == START:
                start = clocks()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(batch["image"]), batch["label"])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            loss.item()
        return since(start, len(loader))

    return run


class Stopwatch(Callback):
    """Times the steps of an epoch; validation and what is saved at its end are left out."""

    def __init__(self, steps: int) -> None:
        self.steps, self.started, self.cost = steps, clocks(), (0.0, 0.0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Start."""
        if batch_idx == START:
            self.started = clocks()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.cost = since(self.started, self.steps)


def plain_lightning(data: Data) -> Callable[[], Cost]:
    """Return Lightning with nothing of ours."""

    def run() -> Cost:
        watch = Stopwatch(data.steps)
        trainer = Trainer(**arguments(), callbacks=[watch], logger=False, **quiet(), enable_checkpointing=False)
        trainer.fit(Model(), data.train_dataloader(), data.val_dataloader())
        return watch.cost

    return run


def ours(data: Data, folder: Path, *, tracked: bool = True) -> Callable[[], Cost]:
    """Return the stage with everything on; each call is a run of its own."""
    count = iter(range(1000))

    def run() -> Cost:
        watch, place = Stopwatch(data.steps), folder / f"run{next(count)}"
        place.mkdir()
        record = Run(place, {"identity": place.name})
        settings = {"uri": None, "experiment": "benchmark", "strict": False, "flush_every_s": 5.0}
        tracker = Tracker(record, output_dir=folder, enabled=tracked, **settings)
        context = Context(run=record, tracker=tracker, upstream={"prepared": [Run(folder, {"identity": "x"})]})
        names = {"curriculum": "stage_1", "fold": 0, "seed": 0, "num_workers": 0}
        made = partial(Trainer, **arguments())
        fit(data, Model, trainer=made, callbacks={**everything(), "watch": watch}, context=context, **names)
        tracker.finish("FINISHED")
        return watch.cost

    return run


def everything() -> dict[str, Any]:
    """Return the callbacks of conf/trainer/default.yaml, the average of weights included."""
    return {
        "best": BestCheckpoints(monitor="val/dice/mean", mode="max", top_k=1),
        "regular": RegularCheckpoints(every_n_epochs=10),
        "last": LastCheckpoint(every_n_steps=200),
        "early_stopping": EarlyStopping(monitor="val/dice/mean", mode="max", patience=20, min_delta=0.0),
        "ema": ExponentialMovingAverage(decay=0.99),
        "finite": FiniteGuard(),
        "frozen": FrozenGuard(),
        "examples": ExamplePictures(num_cases=1),
        "progress": Progress(),
        "resources": Resources(),
    }


def arguments() -> dict[str, Any]:
    """Return the trainer's arguments that both Lightning loops share."""
    return {"max_epochs": 1, "accelerator": "cpu", "gradient_clip_val": CLIP, "num_sanity_val_steps": 0}


def quiet() -> dict[str, bool]:
    """Return what keeps Lightning from drawing."""
    return {"enable_progress_bar": False, "enable_model_summary": False}


def main() -> None:
    """Measure in turns, so that a busy machine is busy for all; print medians and differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", type=int, default=13, help="edge of the patch in voxels")
    parser.add_argument("--skip-loader", action="store_true", help="only the loops")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two threads that wait for each other measure the rest of the machine
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        prepare_database(database_uri(Path(name)))  # and MLflow is imported
        data = Data(options.size, options.steps)
        loops = {
            "bare": bare(data),
            "lightning": plain_lightning(data),
            "medexp, MLflow off": ours(data, _made(Path(name) / "off"), tracked=False),
            "medexp": ours(data, Path(name)),
        }
        costs: dict[str, list[Cost]] = {key: [] for key in loops}
        for turn in range(options.rounds + 1):
            for key, loop in loops.items():
                cost = loop()
                if turn > 0:  # the first turn warms up
                    costs[key].append(cost)
    report(costs)
    if not options.skip_loader:
        percent = loader_wait_percent()
        print(f"waiting for the loader {percent:6.2f} % of training time   target: less than {LIMIT_WAIT_PERCENT} %")


def loader_wait_percent() -> float:
    """Return the share that a run of its own reports: two processes, patches of 96^3, nnU-Net's augmentation."""
    with tempfile.TemporaryDirectory() as folder:
        common = [f"output_dir={folder}", f"dataset.roots=[{folder}/mock/brats]", "mock.num_patients=4"]
        common += ["mock.shape=[112,112,112]", "dataset.num_folds=2", "dataset.patch_size=[96,96,96]"]
        common += ["dataset.steps_per_epoch=8", "model=unet3d", "model.network.base_features=8", "hardware=cpu"]
        common += ["hardware.num_workers=2", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2"]
        common += ["trainer.limit_val_batches=1"]
        for stage in ("mock", "prepare", "1"):
            arguments = [sys.executable, "-m", "medexp.run", *common, f"stage={stage}"]
            done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ})
            if done.returncode != 0:
                sys.exit(done.stderr)
        (history,) = Path(folder).glob("brats/1-*/history.csv")
        with history.open(newline="") as stream:
            return statistics.mean(float(row["loader_wait_percent"]) for row in csv.DictReader(stream))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def report(costs: dict[str, list[Cost]]) -> None:
    """Print the shortest turns and what ours add to them, then the medians of the differences within a turn."""
    print(f"{'ms per step, shortest turn':<28}{'wall':>8}{'processor':>12}")
    for key, values in costs.items():
        print(f"{key:<28}{1000 * _shortest(values, 0):8.2f}{1000 * _shortest(values, 1):12.2f}")
    for other, limit in (("bare", LIMIT_MS), ("lightning", LIMIT_OVER_LIGHTNING_MS)):
        wall, processor = (1000 * (_shortest(costs["medexp"], n) - _shortest(costs[other], n)) for n in (0, 1))
        median = 1000 * statistics.median(a[0] - b[0] for a, b in zip(costs["medexp"], costs[other], strict=True))
        print(f"{'medexp over ' + other:<28}{wall:8.2f}{processor:12.2f}   target: at most {limit} ms", end="")
        print(f"   (median of {len(costs[other])} turns: {median:.2f})")


def _shortest(values: list[Cost], clock: int) -> float:
    return min(value[clock] for value in values)


if __name__ == "__main__":
    main()
