"""The wheel carries everything, and works from a folder that knows nothing of the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=CHECKOUT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def medexp(site, folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MEDEXP_")}
    environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-P", "-m", "medexp.run", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_configuration_travels_with_the_wheel(unpacked):
    shipped = {path.relative_to(CHECKOUT / "conf") for path in (CHECKOUT / "conf").rglob("*.yaml")}
    carried = {
        path.relative_to(unpacked / "medexp" / "conf") for path in (unpacked / "medexp" / "conf").rglob("*.yaml")
    }
    assert carried == shipped - {Path("local.yaml")}


def test_a_run_from_the_wheel_writes_below_the_present_folder(unpacked, tmp_path):
    done = medexp(unpacked, tmp_path, "experiment=demo", "stage=mock", "hydra.mode=RUN", "mock.num_patients=3")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "multirun" / "brats").glob("mock-*/run.json"))


def test_errors_from_the_wheel_name_the_nearest_key(unpacked, tmp_path):
    done = medexp(unpacked, tmp_path, "dataset=brats", "model=monai_ft", "stage=2", "fodl=1")
    assert done.returncode == 2
    assert "did you mean fold" in done.stderr
