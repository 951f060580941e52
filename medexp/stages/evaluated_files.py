"""Which files an evaluation compares: of an earlier run, of any folder, or of both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medexp.errors import CohortError, ConfigurationError, IncompletePredictionsError, ManifestError
from medexp.io.pairing import Pair, images_beside, label_maps, paired
from medexp.runs.files import read_json
from medexp.runs.ledger import Run
from medexp.runs.lineage import ancestry
from medexp.stages.context import Context
from medexp.stages.image_scoring import PredictedImage

log = logging.getLogger(__name__)

_LISTED = 20


@dataclass(frozen=True)
class Selection:
    """The pairs to score, where they come from, and the predicted cases that have no reference by design."""

    pairs: tuple[Pair, ...]
    predictions: str
    references: str
    without_reference: tuple[str, ...] = ()


@runtime_checkable
class Finder(Protocol):
    """Finds the file of every case below a folder; `key` is the configuration key that named the folder."""

    def __call__(self, folder: Path, *, key: str) -> dict[str, Path]:
        """Return the files by case."""


def select(
    predictions: str | Path | None,
    references: str | Path | None,
    *,
    context: Context,
    find_predictions: Finder = label_maps,
    find_references: Finder = label_maps,
) -> Selection:
    """Return the pairs of files to score, sorted by case.

    The upstream run `predicted` says which cases were asked for; a folder of predictions must hold exactly the
    cases of its references.

    Args:
        predictions: A folder; None: what the upstream run wrote.
        references: A folder; None: what the upstream run says.
        context: The run.
        find_predictions: Finds the cases of a folder of predictions.
        find_references: Finds the cases of a folder of references.

    Raises:
        IncompletePredictionsError: Predictions or references are missing; all are listed.
        ConfigurationError: It is not said where the references are.
    """
    runs = context.upstream.get("predicted", [])
    if predictions is None and not runs:
        message = "evaluate.predictions: expected a folder of predictions or an earlier stage=predict, got neither"
        raise ConfigurationError(message)
    if predictions is None:
        return _of_run(runs[0], references, find_references)
    if references is None:
        message = "evaluate.references: expected a folder of references for evaluate.predictions, got null; name one"
        raise ConfigurationError(message)
    predicted = find_predictions(Path(predictions), key="evaluate.predictions")
    referred = find_references(Path(references), key="evaluate.references")
    pairs = paired(predicted, referred, where="evaluate.predictions")
    return Selection(tuple(_with_images(pair) for pair in pairs), str(predictions), str(references))


def select_predictions(
    predictions: str | Path | None, *, context: Context, key: str = "evaluate.predictions"
) -> tuple[str, list[PredictedImage]]:
    """Return where the predictions are, and all of them, sorted by case; references are not looked for.

    Raises:
        ConfigurationError: There is no such folder, or neither a folder nor an earlier stage=predict.
        CohortError: The folder holds no label map, or several of one case.
    """
    runs = context.upstream.get("predicted", [])
    if predictions is not None:
        found = label_maps(Path(predictions), key=key)
        return str(predictions), [PredictedImage(case, path) for case, path in found.items()]
    if not runs:
        message = f"{key}: expected a folder of label maps or an earlier stage=predict, got neither"
        raise ConfigurationError(message)
    manifest = runs[0].output("predictions").verified()
    return str(manifest), [
        PredictedImage(
            str(entry["case"]), runs[0].folder / _path_of(entry["prediction"]), entry.get("sha256"), _images(entry)
        )
        for entry in sorted(_entries(manifest), key=lambda entry: str(entry["case"]))
    ]


def _of_run(run: Run, references: str | Path | None, find_references: Finder) -> Selection:
    manifest = run.output("predictions").verified()
    entries = _entries(manifest)
    known = {} if references is None else find_references(Path(references), key="evaluate.references")
    pairs, without = [], []
    for entry in entries:
        own = entry.get("reference")
        reference = known.get(entry["case"]) if references is not None else own and run.folder / _path_of(own)
        if reference is None:
            without.append(str(entry["case"]))
            continue
        pairs.append(
            Pair(
                case=str(entry["case"]),
                prediction=run.folder / _path_of(entry["prediction"]),
                reference=Path(reference),
                patient=entry.get("patient"),
                sha256=entry.get("sha256"),
                images=_images(entry),
            )
        )
    _require_references(without, len(entries), references, manifest)
    images = _prepared_cases(run)
    completed = [_completed(pair, images.get(pair.case)) for pair in sorted(pairs, key=lambda pair: pair.case)]
    place = "the references of the predicted cases" if references is None else str(references)
    return Selection(tuple(completed), str(manifest), place, tuple(without))


def _entries(manifest: Path) -> list[Mapping[str, Any]]:
    record = read_json(manifest)
    entries = record.get("cases") if isinstance(record, dict) else None
    if not entries or not all({"case", "prediction"} <= set(entry) for entry in entries):
        message = f"{manifest}: expected a list 'cases' with 'case' and 'prediction' in each, got something else"
        raise ManifestError(f"{message}; run stage=predict again")
    return list(entries)


def _path_of(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry["path"])


def _images(entry: Mapping[str, Any]) -> tuple[tuple[str, Path], ...]:
    images = entry.get("images") or {}
    return tuple((str(channel), Path(_path_of(image))) for channel, image in images.items())


def _require_references(without: list[str], num_cases: int, references: str | Path | None, manifest: Path) -> None:
    if not without:
        return
    listing = "".join(f"\n  {case}" for case in without[:_LISTED])
    if references is not None:
        message = f"{references}: expected a reference for each of {num_cases} predicted cases, {len(without)} lack one"
        remedy = "Name the folder that holds them in evaluate.references."
        raise IncompletePredictionsError(f"{message}:{listing}\n{remedy}")
    if len(without) == num_cases:
        message = f"{manifest}: expected references of the predicted cases, got {num_cases} cases without one"
        raise CohortError(f"{message}; name a folder with evaluate.references=FOLDER")
    log.warning("%d of %d predicted cases have no reference and are not scored:%s", len(without), num_cases, listing)


def _prepared_cases(run: Run) -> dict[str, Mapping[str, Any]]:
    manifest = _manifest(run)
    return {} if manifest is None else {str(entry["case"]): entry for entry in manifest["cases"]}


def _manifest(run: Run) -> Mapping[str, Any] | None:
    """Return the manifest of the cohort that a run descends from."""
    prepared = [one for one in ancestry([run]) if one.record["stage"] == "prepare"]
    return read_json(prepared[0].folder / "manifest.json") if prepared else None


def _completed(pair: Pair, prepared: Mapping[str, Any] | None) -> Pair:
    if prepared is None:
        return _with_images(pair)
    patient = pair.patient or str(prepared["patient"])
    return replace(pair, patient=patient, images=pair.images or _images(prepared))


def _with_images(pair: Pair) -> Pair:
    return pair if pair.images else replace(pair, images=images_beside(pair.reference))


def find_labels(places: Sequence[str], *, context: Context) -> dict[str, int]:
    """Return the foreground labels of the prepared cohort, else of a dataset.json beside or above the files.

    Args:
        places: Files or folders that are compared.
        context: The run.

    Raises:
        ConfigurationError: Neither says them.
    """
    for run in context.upstream.get("predicted", []):
        manifest = _manifest(run)
        if manifest is not None:
            return {str(name): int(value) for name, value in manifest["labels"].items()}
    tried = []
    for place in places:
        for folder in (Path(place), Path(place).parent):
            path = folder / "dataset.json"
            if path.is_file():
                return _labels_of(path)
            tried.append(str(path))
    message = f"dataset.labels: expected names and values, got null and no dataset.json ({', '.join(tried)})"
    raise ConfigurationError(f"{message}; say 'dataset.labels={{name: 1}}' or put nnU-Net's dataset.json there")


def _labels_of(path: Path) -> dict[str, int]:
    record = read_json(path)
    labels = record.get("labels") if isinstance(record, dict) else None
    if not isinstance(labels, dict) or not all(isinstance(value, int) for value in labels.values()):
        message = f"{path}: expected 'labels' with one integer per name, got {labels!r}"
        raise ManifestError(f"{message}; say dataset.labels, and dataset.regions for regions")
    return {str(name): value for name, value in labels.items() if value != 0}
