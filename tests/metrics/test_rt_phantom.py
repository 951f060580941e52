"""DVHs of a treatment plan against the tables that three programs computed from the same files."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from medexp.metrics.dvh import Dvh, dvh_of_contours

PROGRAMS = ("CERR", "Eclipse", "SlicerRT")
STRUCTURES = ("BODY", "Bladder", "Femoral Head Lt", "Femoral Head RT", "PTV", "Rectum")
PERCENTS = (99.5, 99.0, 98.0, 95.0, 90.0, 70.0, 50.0, 30.0, 10.0, 5.0, 2.0, 1.0, 0.5)
TOLERANCE_GY = 0.2

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    found = shared_data / "rt_phantom"
    if not found.is_dir():
        pytest.skip("the phantom's plan is not among the shared data")
    return found


@pytest.fixture(scope="module")
def dose(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the NRRD: a header of lines, an empty line, gzip'ed values whose first axis runs fastest."""
    header, values = (folder / "EclipseProstate_Dose.nrrd").read_bytes().split(b"\n\n", 1)
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line and line[0] != "#")
    assert (fields["type"], fields["encoding"], fields["endian"]) == ("float", "gzip", "little")
    assert fields["space"] == "left-posterior-superior"
    shape = [int(size) for size in fields["sizes"].split()]
    affine = np.eye(4)
    affine[:3, :3] = np.array([vector(text) for text in fields["space directions"].split()]).T
    affine[:3, 3] = vector(fields["space origin"])
    array = np.frombuffer(gzip.decompress(values), "<f4").reshape(shape, order="F")
    return np.ascontiguousarray(array), LPS_TO_RAS @ affine


def vector(text: str) -> list[float]:
    return [float(number) for number in text.strip("()").split(",")]


@pytest.fixture(scope="module")
def dvhs(folder: Path, dose: tuple[np.ndarray, np.ndarray]) -> dict[str, Dvh]:
    import pydicom

    dataset = pydicom.dcmread(next(folder.glob("RS*.dcm")))
    names = {roi.ROINumber: roi.ROIName for roi in dataset.StructureSetROISequence}
    found = {}
    for roi in dataset.ROIContourSequence:
        name = names[roi.ReferencedROINumber]
        if name in STRUCTURES:
            points = [np.array(contour.ContourData, dtype=float).reshape(-1, 3) for contour in roi.ContourSequence]
            found[name] = dvh_of_contours(*dose, [contour * [-1.0, -1.0, 1.0] for contour in points])
    assert set(found) == set(STRUCTURES)
    return found


@pytest.fixture(scope="module")
def rectum(folder: Path) -> list[np.ndarray]:
    import pydicom

    dataset = pydicom.dcmread(next(folder.glob("RS*.dcm")))
    (number,) = [roi.ROINumber for roi in dataset.StructureSetROISequence if roi.ROIName == "Rectum"]
    (contours,) = [roi for roi in dataset.ROIContourSequence if roi.ReferencedROINumber == number]
    points = [np.array(contour.ContourData, dtype=float).reshape(-1, 3) for contour in contours.ContourSequence]
    return [contour * [-1.0, -1.0, 1.0] for contour in points]


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, dict[str, tuple[float, np.ndarray]]]:
    """Volume in cc and curve (dose in Gy, volume in percent) by program and structure; columns come in pairs."""
    found = {}
    for program in PROGRAMS:
        rows = list(csv.reader((folder / f"EclipseProstate_DvhTable_{program}.csv").open()))
        pairs = range(0, 2 * len(STRUCTURES), 2)
        found[program] = {}
        for column, structure in zip(pairs, STRUCTURES, strict=True):
            assert rows[0][column].lower().replace(" ", "").startswith(structure.lower().replace(" ", ""))
            volume = float(rows[0][column + 1].split("% of ")[1].split(" cc")[0])
            # Curves end on different rows: shorter columns are empty, or the row ends before them.
            cells = [row[column : column + 2] for row in rows[1:] if len(row) > column + 1 and row[column]]
            found[program][structure] = (volume, np.array(cells, dtype=float))
    return found


def doses_at(curve: np.ndarray, percent: float) -> float:
    return float(np.interp(-percent, -curve[:, 1], curve[:, 0]))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_doses_at_volumes_are_in_the_range_of_three_programs(
    structure: str, dvhs: dict[str, Dvh], tables: dict[str, dict[str, tuple[float, np.ndarray]]]
) -> None:
    outside = {}
    for percent in PERCENTS:
        theirs = [doses_at(tables[program][structure][1], percent) for program in PROGRAMS]
        ours = dvhs[structure].dose_at_volume_percent(percent)
        if not min(theirs) - TOLERANCE_GY <= ours <= max(theirs) + TOLERANCE_GY:
            outside[percent] = (ours, theirs)
    assert outside == {}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_volumes_at_doses_are_within_half_a_percent_of_the_range(
    structure: str, dvhs: dict[str, Dvh], tables: dict[str, dict[str, tuple[float, np.ndarray]]]
) -> None:
    limits = np.arange(1.0, 46.5, 0.5)
    curves = [tables[program][structure][1] for program in PROGRAMS]
    theirs = np.array([np.interp(limits, curve[:, 0], curve[:, 1]) for curve in curves])
    ours = dvhs[structure].curve(limits)
    assert (ours > theirs.min(axis=0) - 0.5).all()
    assert (ours < theirs.max(axis=0) + 0.5).all()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_volumes_are_within_half_a_percent_of_the_range(
    structure: str, dvhs: dict[str, Dvh], tables: dict[str, dict[str, tuple[float, np.ndarray]]]
) -> None:
    theirs = [tables[program][structure][0] for program in PROGRAMS]
    assert 0.995 * min(theirs) <= dvhs[structure].volume_cc <= 1.005 * max(theirs)


def test_slicers_metrics_are_met(folder: Path, dvhs: dict[str, Dvh]) -> None:
    rows = {
        row["Structure"]: row for row in csv.DictReader((folder / "EclipseProstate_DvhMetrics_SlicerRT.csv").open())
    }
    assert set(rows) == set(STRUCTURES)
    for structure, row in rows.items():
        dvh = dvhs[structure]
        assert dvh.mean_gy == pytest.approx(float(row["Mean dose (GY)"]), abs=0.06)
        assert dvh.dose_at_volume_cc(2) == pytest.approx(float(row["D2cc (GY)"]), abs=0.15)
        assert dvh.dose_at_volume_cc(5) == pytest.approx(float(row["D5cc (GY)"]), abs=0.15)
        assert dvh.dose_at_volume_percent(5) == pytest.approx(float(row["D5% (GY)"]), abs=0.15)
        assert dvh.dose_at_volume_percent(10) == pytest.approx(float(row["D10% (GY)"]), abs=0.15)
        assert dvh.volume_percent_at_dose(5) == pytest.approx(float(row["V5 (%)"]), abs=0.5)
        assert dvh.volume_percent_at_dose(20) == pytest.approx(float(row["V20 (%)"]), abs=0.5)


def test_the_rectums_end_decides_its_d98(
    dose: tuple[np.ndarray, np.ndarray],
    rectum: list[np.ndarray],
    tables: dict[str, dict[str, tuple[float, np.ndarray]]],
) -> None:
    """The coldest 2 % lie on the last plane, where dose falls by 4 Gy per mm: half a plane distance is out of range."""
    theirs = [doses_at(tables[program]["Rectum"][1], 98.0) for program in PROGRAMS]
    found = {}
    for reach in (0.25, 0.45, 0.5):
        dvh = dvh_of_contours(*dose, rectum, end_reach=reach)
        assert dvh is not None
        found[reach] = dvh.dose_at_volume_percent(98)
    assert found[0.25] > found[0.45] > min(theirs) - TOLERANCE_GY > found[0.5]
