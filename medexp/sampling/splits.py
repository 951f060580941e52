"""Folds by patient: made once, the same on every machine, in the shape of nnU-Net's splits_final.json."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.errors import ConfigurationError, LeakageError, ManifestError
from medexp.io.leakage import VoxelHashes, leakage_message, require_disjoint, shared_pairs
from medexp.runs.files import read_json

Fold = dict[str, list[str]]  # {"train": [...], "val": [...]}


def make_splits(patient_of: Mapping[str, str], *, num_folds: int, seed: int) -> list[Fold]:
    """Return folds in which every case is validated once and no patient is on both sides.

    Patients are ordered by a hash of seed and name, not by a random generator or by the order of files; those
    with many cases are dealt out first, each to the fold with the fewest cases so far. The result depends on names,
    seed and number of folds only.

    Args:
        patient_of: The patient of each training case.
        num_folds: At least 2, at most the number of patients.
        seed: Another seed, other folds.

    Raises:
        ConfigurationError: `dataset.num_folds` does not fit the number of patients.
    """
    require_folds(num_folds, len(set(patient_of.values())))
    num_cases = Counter(patient_of.values())
    patients = sorted(num_cases, key=lambda patient: (-num_cases[patient], _draw(seed, patient), patient))
    fold_of: dict[str, int] = {}
    sizes = [0] * num_folds
    for patient in patients:
        fold = min(range(num_folds), key=lambda index: (sizes[index], index))
        fold_of[patient] = fold
        sizes[fold] += num_cases[patient]
    cases = sorted(patient_of)
    return [
        {
            "train": [case for case in cases if fold_of[patient_of[case]] != fold],
            "val": [case for case in cases if fold_of[patient_of[case]] == fold],
        }
        for fold in range(num_folds)
    ]


PATTERN_KEYS = "dataset.patient_pattern; of images dataset.group_pattern"


def require_folds(num_folds: int, num_patients: int) -> None:
    """Refuse a number of folds that the patients cannot fill.

    Raises:
        ConfigurationError: Names `dataset.num_folds`.
    """
    if not 2 <= num_folds <= num_patients:
        message = f"dataset.num_folds: expected at least 2 and at most {num_patients}, the number of patients"
        raise ConfigurationError(f"{message}, got {num_folds}; folds are cut by patient ({PATTERN_KEYS})")


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}\0{patient}".encode("utf-8", "surrogateescape")).hexdigest()


def read_splits(path: Path) -> list[Fold]:
    """Return the folds of an existing splits_final.json.

    Raises:
        ManifestError: The file is missing or has another shape.
    """
    record = read_json(path)
    if not isinstance(record, list) or not record or not all(_is_fold(fold) for fold in record):
        message = f'{path}: expected nnU-Net\'s shape [{{"train": [cases], "val": [cases]}}, ...]'
        raise ManifestError(f"{message}; correct dataset.splits_file or set it to null")
    return [{"train": sorted(fold["train"]), "val": sorted(fold["val"])} for fold in record]


def _is_fold(fold: Any) -> bool:
    sides = [fold.get("train"), fold.get("val")] if isinstance(fold, dict) else []
    return bool(sides) and all(
        isinstance(side, list) and side and all(isinstance(case, str) for case in side) for side in sides
    )


def check_splits(
    splits: Sequence[Mapping[str, Sequence[str]]],
    *,
    patient_of: Mapping[str, str],
    voxels_of: VoxelHashes,
    source: str,
) -> None:
    """Refuse folds that leak, name strangers, or leave out cases.

    Args:
        splits: The folds.
        patient_of: The patient of each training case.
        voxels_of: Hashes of each case's channels.
        source: Where the folds come from, for messages.

    Raises:
        ManifestError: A case is unknown, twice in a fold, or nowhere; lists them.
        LeakageError: A patient, or the same voxels, on both sides of a fold; lists the pairs.
    """
    for index, fold in enumerate(splits):
        train, val = list(fold["train"]), list(fold["val"])
        _require_known([*train, *val], patient_of, f"{source}: fold {index}")
        sides = {f"the training cases of fold {index}": train, "its validation cases": val}
        require_disjoint(sides, patient_of=patient_of, voxels_of=voxels_of)
        _require_once([*train, *val], f"{source}: fold {index}")
    named = {case for fold in splits for side in ("train", "val") for case in fold[side]}
    missing = sorted(set(patient_of) - named)
    if missing:
        message = f"{source}: expected every training case in a fold, but {len(missing)} are in none"
        raise ManifestError(f"{message}: {', '.join(missing[:10])}; add them or set dataset.splits_file=null")


def _require_known(cases: Sequence[str], patient_of: Mapping[str, str], where: str) -> None:
    strangers = sorted(set(cases) - set(patient_of))
    if strangers:
        message = f"{where} names {len(strangers)} cases that are no usable training cases of the cohort"
        raise ManifestError(f"{message}: {', '.join(strangers[:10])}; correct dataset.splits_file or dataset.roots")


def _require_once(cases: Sequence[str], where: str) -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    for case in cases:
        counts[case] += 1
    repeated = sorted(case for case, count in counts.items() if count > 1)
    if repeated:
        raise ManifestError(f"{where} names cases twice: {', '.join(repeated[:10])}; correct dataset.splits_file")


def require_different_voxels(cases: Sequence[str], *, patient_of: Mapping[str, str], voxels_of: VoxelHashes) -> None:
    """Refuse a cohort in which cases of different patients hold the same voxels.

    Some fold would have one of them on each side, and whose they are is not known.

    Raises:
        LeakageError: Lists the pairs.
    """
    pairs = [
        f"{first} and {second} hold the same voxels"
        for first, second in shared_pairs(cases, cases, voxels_of)
        if first < second and patient_of[first] != patient_of[second]
    ]
    if pairs:
        raise LeakageError(leakage_message("the two sides of every fold", pairs))
