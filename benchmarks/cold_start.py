"""How long a cold start takes to its first training step, over the bare imports of the libraries it needs.

    python benchmarks/cold_start.py [--model monai_ft|unet3d] [--rounds 3]

A synthetic BraTS cohort is made and prepared first; database and cohort are then there. Each round starts two
fresh processes in turn: the bare imports, and `python -m medexp.run stage=1` up to the first line in
metrics.jsonl. Target: at most 1.25 times the bare imports.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1.25
LIBRARIES = {"monai_ft": "torch, lightning, mlflow, monai.networks.nets", "unet3d": "torch, lightning, mlflow"}
NEEDLESS = {"monai_ft": ("segmentation_models_pytorch",), "unet3d": ("segmentation_models_pytorch", "monai")}
SMALL = {
    "monai_ft": ["model.weights=null", "model.network.init_filters=8", "model.curriculum.stage_1.freeze=[convInit]"],
    "unet3d": ["model.network.base_features=4"],
}


def bare_imports_s(model: str) -> float:
    """Return the wall time of a process that imports the libraries and nothing else."""
    start = time.time()
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES[model]}"], check=True, capture_output=True)
    return time.time() - start


def command(folder: Path, model: str, *overrides: str) -> list[str]:
    """Return a command line whose cohort and output lie in `folder`."""
    common = [
        f"output_dir={folder}",
        f"dataset.roots=[{folder}/mock/brats]",
        f"model={model}",
        "mock.num_patients=4",
        "mock.shape=[40,40,40]",
        "dataset.num_folds=2",
        "dataset.patch_size=[32,32,32]",
        "dataset.steps_per_epoch=2",
        "hardware=cpu",
        "hardware.num_workers=0",
        "trainer=debug",
    ]
    return ["-m", "medexp.run", *common, *SMALL[model], *overrides]


def first_step_s(folder: Path, model: str, seed: int) -> float:
    """Return the time from the start of a process to the end of its first training step."""
    start = time.time()
    run(command(folder, model, "stage=1", f"seed={seed}", "trainer.max_epochs=1", "trainer.limit_val_batches=1"))
    (metrics,) = folder.glob(f"brats/1-{model}-fold0-seed{seed}-*/metrics.jsonl")
    with metrics.open() as stream:
        return float(json.loads(stream.readline())["time"]) - start


def run(arguments: list[str], *interpreter: str) -> str:
    """Run Python and return what it wrote to stderr; a failure is shown."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *interpreter, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\nexit status {done.returncode}\n{done.stderr}")
    return done.stderr


def needless_imports(folder: Path, model: str) -> list[str]:
    """Return the libraries that a run imports although its model does not need them."""
    log = run(command(folder, model, "stage=1", "seed=1000", "trainer.max_epochs=1"), "-X", "importtime")
    imported = {line.rsplit("|", 1)[-1].strip() for line in log.splitlines() if line.startswith("import time:")}
    return sorted(imported & set(NEEDLESS[model]))


def main() -> int:
    """Measure in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(LIBRARIES), default="monai_ft")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stage in ("mock", "prepare"):
            run(command(folder, options.model, f"stage={stage}"))
        first_step_s(folder, options.model, 999)  # caches of the file system and of Python
        bare_imports_s(options.model)
        bare, ours = [], []
        for turn in range(options.rounds):
            bare.append(bare_imports_s(options.model))
            ours.append(first_step_s(folder, options.model, turn))
        needless = needless_imports(folder, options.model)
    ratio = statistics.median(step / imports for step, imports in zip(ours, bare, strict=True))
    print(f"{options.model}: bare imports {statistics.median(bare):.2f} s, first step {statistics.median(ours):.2f} s")
    print(f"ratio {ratio:.2f} (target: at most {LIMIT}); needless imports: {needless or 'none'}")
    return int(ratio > LIMIT or bool(needless))


if __name__ == "__main__":
    sys.exit(main())
