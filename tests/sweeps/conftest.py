"""Sweeps over jobs that break, of a package of their own that only the environment admits."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "faulty_package"
_STAGE = """
curriculum: null
upstream: {upstream}
inputs: []
identity_of: {{}}
call:
  _target_: faulty_jobs.stages.act
  _partial_: true
  kinds: {kinds}
  fold: ${{fold}}
  seed: ${{seed}}
"""
TIMEOUT_S = 240


@dataclass
class Faulty:
    """A place with configuration in which stages 11 and 12 do what their folds are told to."""

    folder: Path
    options: list[str] = field(default_factory=lambda: ["tracking.enabled=false"])

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def tell(self, first: list[str], second: list[str] | None = None) -> None:
        """Say what each fold of stage 11, and of stage 12, does."""
        stages = self.folder / "conf" / "stage"
        stages.mkdir(parents=True, exist_ok=True)
        (stages / "11.yaml").write_text(_STAGE.format(upstream="{}", kinds=json.dumps(first)))
        second = ["ok"] * len(first) if second is None else second
        (stages / "12.yaml").write_text(_STAGE.format(upstream="{initial: '11'}", kinds=json.dumps(second)))

    def command(self, *overrides: str, flags: tuple[str, ...] = ("-m",)) -> list[str]:
        line = ["-m", "medexp.run", *flags, "--config-dir", str(self.folder / "conf"), f"output_dir={self.output}"]
        return [
            sys.executable,
            *line,
            "dataset=brats",
            "model.weights=null",
            "dataset.num_folds=100",
            *self.options,
            *overrides,
        ]

    @property
    def environment(self) -> dict[str, str]:
        admitted = {
            "PYTHONPATH": os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "MEDEXP_ALLOW_TARGETS": "faulty_jobs",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **admitted}

    def run(self, *overrides: str, **changes: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*overrides),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**self.environment, **changes},
        )

    def start(self, *overrides: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*overrides), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def record(self) -> dict:
        (path,) = self.output.glob("sweeps/*/sweep.json")
        return json.loads(path.read_text())

    @property
    def states(self) -> list[str]:
        return [job["state"] for job in self.record["jobs"]]

    @property
    def starts(self) -> list[list[str]]:
        path = self.output / "starts.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    return Faulty(tmp_path)
