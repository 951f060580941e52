import subprocess
import sys
from pathlib import Path

import pytest

from medexp.errors import ConfigurationError
from medexp.preparation import entry_code
from medexp.preparation.entry_code import code_version


@pytest.fixture(autouse=True)
def fresh():
    code_version.cache_clear()
    yield
    code_version.cache_clear()


def copy_of_the_package(folder):
    for path in entry_code._PACKAGE.rglob("*.py"):
        target = folder / path.relative_to(entry_code._PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("io/dicom_ct.py", {"doses"}),
        ("geometry/contours.py", {"doses"}),
        ("io/tiff.py", {"images"}),
        ("preparation/normalization.py", {"volumes"}),
        ("geometry/grids.py", {"volumes", "images", "doses"}),
        ("stages/report.py", set()),
    ],
)
def test_a_change_makes_new_entries_of_the_kinds_that_it_concerns(module, changed, tmp_path, monkeypatch):
    before = {kind: code_version(kind) for kind in ("volumes", "images", "doses")}
    folder = copy_of_the_package(tmp_path)
    (folder / module).write_text("# changed\n" + (folder / module).read_text())
    monkeypatch.setattr(entry_code, "_PACKAGE", folder)
    code_version.cache_clear()
    assert {kind for kind, digest in before.items() if code_version(kind) != digest} == changed


def test_a_module_that_is_gone_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(entry_code, "_PACKAGE", Path(tmp_path))
    with pytest.raises(ConfigurationError, match="expected modules like geometry/affine.py"):
        code_version("doses")


# Loaded with the others, and yet no voxel depends on them.
WITHOUT_INFLUENCE = {
    "medexp.geometry.sample_layers", "medexp.io.channel_statistics", "medexp.io.leakage", "medexp.io.nifti",
    "medexp.io.nifti_header", "medexp.io.prepared", "medexp.preparation.dose_picture",
    "medexp.preparation.normalization", "medexp.preparation.picture", "medexp.preparation.verification",
}  # fmt: skip


def test_no_module_that_dose_entries_are_made_with_is_forgotten():
    parts = "medexp.preparation.dose_entry, medexp.preparation.rt_placing, medexp.io.dose_npz, medexp.io.openkbp"
    code = f"import sys, {parts}; print(*(name for name in sys.modules if name.startswith('medexp.')))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    files = {name: entry_code._PACKAGE / Path(*name.split(".")[1:]).with_suffix(".py") for name in loaded}
    known = {path for pattern in entry_code._SOURCES["doses"] for path in entry_code._PACKAGE.glob(pattern)}
    layers = ("medexp.geometry", "medexp.io", "medexp.metrics.clinical", "medexp.preparation")
    relevant = {name for name, path in files.items() if name.startswith(layers) and path.is_file()}
    assert "medexp.io.dicom_ct" in relevant
    assert {name for name in relevant if files[name] not in known} <= WITHOUT_INFLUENCE
