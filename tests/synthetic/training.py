"""A tiny training with everything that makes resuming hard: dropout, augmentation, schedule, EMA, a frozen part.

`start` runs it in a process of its own, from a server that has imported the heavy libraries once.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping
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
from medexp.stages.context import Context, Result
from medexp.stages.fit import fit
from medexp.tracking import Tracker

CASES = ("case_a", "case_b", "case_c", "case_d", "case_e")


class Batches:
    """A training loader: every batch is a pure function of seed, epoch and index; it can be resumed."""

    def __init__(self, seed: int, *, num_batches: int = 7, poison: int | None = None) -> None:
        self.seed, self.num_batches, self.poison = seed, num_batches, poison
        self.epoch, self.done = 0, 0

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(self.done, self.num_batches):
            batch = self._batch(index)
            is_last = index + 1 == self.num_batches  # a loop that counts never asks for one more
            self.epoch, self.done = (self.epoch + 1, 0) if is_last else (self.epoch, index + 1)
            yield batch

    def _batch(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch, index)))
        image = torch.randn(2, 1, 6, 6, 6, generator=generator)
        label = (image[:, 0] + 0.3 * torch.randn(2, 6, 6, 6, generator=generator) > 0.5).to(torch.uint8)
        number = self.epoch * self.num_batches + index
        if number == self.poison:
            image[1, 0, 0, 0, 0] = float("nan")
        cases = [CASES[(2 * number + offset) % len(CASES)] for offset in range(2)]
        return {"image": image, "label": label, "case": cases}

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]


class Volumes:
    """A validation loader: three whole volumes, always the same."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(3):
            generator = torch.Generator().manual_seed(1000 + index)
            image = torch.randn(1, 1, 8, 8, 8, generator=generator)
            yield {"image": image, "label": (image[:, 0] > 0.5).to(torch.uint8), "case": [f"val_{index}"]}


class Data:
    """What `fit` asks of a datamodule."""

    contract = "toy"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def open(self, prepared: Path, *, fold: int, seed: int, num_workers: int | None) -> None:
        self.seed = seed + 100 * fold

    def train_dataloader(self) -> Batches:
        return Batches(self.seed, **self.settings)

    def val_dataloader(self) -> Volumes:
        return Volumes()


class Model(LightningModule):
    """A frozen convolution, a trained one with dropout, a head."""

    def __init__(self, *, contract: str, phase: str, weights: str | None = "random", lr: float = 0.05) -> None:
        super().__init__()
        self.network = nn.ModuleDict(
            {
                "encoder": nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)),
                "decoder": nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU(), nn.Dropout3d(0.3)),
                "head": nn.Conv3d(4, 2, 1),
            }
        )
        self.lr, self.phase, self.weights = lr, phase, weights
        if phase == "stage_1":
            self.network["encoder"].requires_grad_(False)
            self.train()

    def train(self, mode: bool = True) -> "Model":
        super().train(mode)
        if self.phase == "stage_1":
            self.network["encoder"].eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.network["encoder"](image)
        return self.network["head"](hidden + self.network["decoder"](hidden))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch["image"]), batch["label"].long())
        self.log("train/loss", loss.detach(), batch_size=2)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        prediction = self(batch["image"]).argmax(1).to(torch.uint8)
        overlap = 2 * (prediction & batch["label"]).sum() / (prediction.sum() + batch["label"].sum()).clamp(min=1)
        self.log("val/dice/mean", overlap, batch_size=1, on_epoch=True)
        return {"prediction": prediction}

    def configure_optimizers(self) -> Any:
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.97**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Kill(Callback):
    """Send a signal to this process at a hook's n-th call."""

    def __init__(self, hook: str, call: int, number: int) -> None:
        self.calls = 0
        setattr(self, hook, partial(self._count, call=call, number=number))

    def _count(self, *_: Any, call: int, number: int, **__: Any) -> None:
        self.calls += 1
        if self.calls == call:
            os.kill(os.getpid(), number)


def callbacks(*, decay: float = 0.9, every_n_steps: int = 3, patience: int = 50, top_k: int = 1) -> dict[str, Callback]:
    """Return what conf/trainer/default.yaml configures."""
    return {
        "best": BestCheckpoints(monitor="val/dice/mean", mode="max", top_k=top_k),
        "regular": RegularCheckpoints(every_n_epochs=2),
        "last": LastCheckpoint(every_n_steps=every_n_steps),
        "early_stopping": EarlyStopping(monitor="val/dice/mean", mode="max", patience=patience, min_delta=0.0),
        "ema": ExponentialMovingAverage(decay=decay),
        "finite": FiniteGuard(),
        "frozen": FrozenGuard(),
        "examples": ExamplePictures(num_cases=2),
        "progress": Progress(),
        "resources": Resources(),
    }


def make_run(folder: Path) -> Run:
    """Return a run in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, {"identity": "0" * 63 + "1"})


def make_tracker(run: Run, *, enabled: bool = False, **settings: Any) -> Tracker:
    """Return the run's tracker; MLflow only where asked for."""
    defaults = {
        "output_dir": run.folder.parent,
        "uri": None,
        "experiment": "toy",
        "strict": False,
        "flush_every_s": 0.2,
    }
    return Tracker(run, enabled=enabled, **{**defaults, **settings})


def train(
    folder: Path,
    *,
    resume: bool = False,
    require: bool = False,
    tracked: bool = False,
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    extra: dict[str, Callback] | None = None,
    callback_settings: dict[str, Any] | None = None,
    initial: Run | None = None,
    tracker: Tracker | None = None,
) -> Result:
    """Train in `folder` as the stage does."""
    run = make_run(folder)
    upstream = {"prepared": [make_run(folder.parent / "prepared")]} | ({"initial": [initial]} if initial else {})
    tracker = tracker or make_tracker(run, enabled=tracked)
    arguments = {"max_epochs": 4, "accelerator": "cpu", "accumulate_grad_batches": 1, "check_val_every_n_epoch": 2}
    try:
        result = fit(
            Data(**(data or {})),
            partial(Model, **(model or {})),
            trainer=partial(Trainer, **{**arguments, **(trainer or {})}),
            callbacks=callbacks(**(callback_settings or {})) | (extra or {}),
            curriculum="stage_2" if initial else "stage_1",
            fold=0,
            seed=7,
            num_workers=0,
            context=Context(run=run, tracker=tracker, upstream=upstream, resume=resume, require=require),
        )
    except SystemExit:
        tracker.finish("KILLED")
        raise
    except Exception:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    run.release()
    return result


def start(
    folder: Path,
    *,
    kill: tuple[str, int, int] | None = None,
    kill_after_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> int:
    """Train in a fresh process and return its exit code, negative for a signal.

    `kill` is (hook, call, signal); `kill_after_s` kills at an instant that the process does not know.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.synthetic.training", "mlflow.tracking"])
    process = server.Process(target=_in_process, args=(folder, kill, environment or {}, settings))
    process.start()
    process.join(120 if kill_after_s is None else kill_after_s)
    if process.is_alive():
        process.kill()
        process.join()
        if kill_after_s is None:
            raise TimeoutError(f"{folder}: still training after 120 s")
    return int(process.exitcode or 0)


def _in_process(
    folder: Path, kill: tuple[str, int, int] | None, environment: Mapping[str, str], settings: dict[str, Any]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    train(folder, extra={"kill": Kill(*kill)} if kill else None, **settings)


def logged(folder: Path) -> list[tuple[int, str, str]]:
    """Return what was logged per step, bit for bit, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("time", "step", "epoch_time_s", "loader_wait_percent", "memory/process_gb")
    return [
        (line["step"], key, float(value).hex()) for line in lines for key, value in line.items() if key not in timed
    ]


def final_state(folder: Path) -> str:
    """Return a hash of the last checkpoint's weights, average and optimizer."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    digest = hashlib.sha256()
    for part in ("state_dict", "training_weights", "optimizer_states", "lr_schedulers"):
        _update(digest, checkpoint.get(part))
    return digest.hexdigest()


def _update(digest: Any, record: Any) -> None:
    if isinstance(record, Tensor):
        digest.update(record.contiguous().numpy().tobytes())
    elif isinstance(record, dict):
        for key in record:
            digest.update(str(key).encode())
            _update(digest, record[key])
    elif isinstance(record, list | tuple):
        for value in record:
            _update(digest, value)
    else:
        digest.update(repr(record).encode())
