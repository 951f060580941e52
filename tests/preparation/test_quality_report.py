"""The quality report: complete, escaped, readable without a network."""

import csv
import json
import re

import pytest

from medexp.preparation.cohort import prepare_cohort
from tests.synthetic.brats import make_brats, path_of, settings_for

FIRST = "BraTS-GLI-00001-100"
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    root = make_brats(folder / "raw")
    path_of(root, FIRST, "t1n").write_bytes(b"")
    (root / "BraTS-GLI-00002-100").rename(root / HOSTILE)
    prepare_cohort(
        settings_for(root, name="=cmd()"),
        folder=folder / "run",
        store=folder / "store",
        skip_bad_cases=True,
        num_workers=1,
    )
    return folder / "run"


def test_every_case_is_in_all_three_files(run):
    rows = json.loads((run / "qc.json").read_text())["cases"]
    with (run / "qc.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    page = (run / "qc.html").read_text()
    assert len(rows) == len(table) == page.count("<article") == 4


def test_the_page_needs_nothing_from_outside(run):
    page = (run / "qc.html").read_text()
    assert not re.search(r"(https?:)?//[a-z]", page.split("<body>")[1].replace("data:image", ""))
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_every_usable_case_has_a_picture(run):
    assert (run / "qc.html").read_text().count("data:image/png;base64,iVBOR") == 3


def test_names_are_escaped(run):
    page = (run / "qc.html").read_text()
    assert "<img src=x" not in page
    assert "onerror=" not in page.replace("onerror%3D", "").replace("onerror=&#34;", "")


def test_cases_that_were_left_out_come_first_with_their_reason(run):
    page = (run / "qc.html").read_text()
    assert page.index(f'id="{FIRST}"') < page.index('id="BraTS-GLI-00001-101"')
    assert "empty file" in page


def test_a_table_cell_is_no_formula():
    from medexp.preparation.quality_report import _inert

    assert _inert("=1+1") == "'=1+1"
    assert _inert("-5") == "'-5"
    assert _inert(-5) == -5
    assert _inert("plain") == "plain"


def test_volumes_are_in_milliliters(run):
    with (run / "qc.csv").open(newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["case"] == "BraTS-GLI-00001-101")
    manifest = json.loads((run / "manifest.json").read_text())
    case = next(case for case in manifest["cases"] if case["case"] == "BraTS-GLI-00001-101")
    assert float(row["SNFH_ml"]) == pytest.approx(case["label_voxels"]["SNFH"] / 1000, abs=1e-3)
