"""Small cohorts of planned patients in every raw format, and the settings to prepare them with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_write import write_patient
from medexp.io.dose_case import DoseCase
from medexp.io.dose_npz import write_case_npz
from medexp.preparation import dicom_rt, dose_archives
from medexp.preparation.dose_cohort import DoseCohortSettings
from medexp.preparation.dose_grid import AsStored, NativeCrop
from tests.synthetic.doses import VMAT, small_case

SMALL = NativeCrop(inplane_size=24, z_margin_mm=10.0, min_slices=16)
ALIASES = {"PTV70": ("PTV High",), "Femur_L": ("Femoral Head L",)}
FIND = {"dicom_rt": dicom_rt.find_cases, "npz": dose_archives.find_cases}


def settings_for(root: Path, **changes) -> DoseCohortSettings:
    """Return the settings of conf/dataset/vmat.yaml on a small grid."""
    data_format = changes.get("format", "dicom_rt")
    values = {
        "name": "vmat",
        "find_cases": FIND.get(data_format),
        "roots": (root,),
        "test_roots": (),
        "patient_pattern": None,
        "format": "dicom_rt",
        "structures": VMAT,
        "aliases": ALIASES,
        "required": ("PTV70",),
        "grid": SMALL if data_format == "dicom_rt" else AsStored(),
        "dose_interpolation": "bspline",
        "distance_clip_mm": 50.0,
        "strict_validation": False,
        "split": "holdout",
        "holdout_shares": (0.6, 0.2, 0.2),
        "num_folds": None,
        "split_seed": 42,
        "splits_file": None,
        "patch_size": (32, 32, 32),
    }
    return DoseCohortSettings(**{**values, **changes})


def planned(seed: int, **changes) -> DoseCase:
    """Return a patient whose CT reaches from air to bone."""
    case = small_case(seed)
    ct = case.ct_hu.copy()
    ct[case.masks["Femur_L"]] = 400
    return replace(case, ct_hu=ct, possible_dose=None, coverage={}, **changes)


def write_dicom(root: Path, seeds: Sequence[int] = range(5)) -> dict[int, dict[str, Path]]:
    """Write DICOM-RT patients `p<seed>`; return the files of each."""
    return {
        seed: write_patient(root / f"p{seed}", planned(seed), seed=seed, identity=PatientIdentity(f"id-{seed}"))
        for seed in seeds
    }


def write_archives(root: Path, seeds: Sequence[int] = range(5)) -> None:
    """Write documented npz files `a<seed>.npz`."""
    root.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        write_case_npz(root / f"a{seed}.npz", planned(seed), structures=VMAT, distance_clip_mm=50.0)
