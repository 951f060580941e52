"""Weights that have seen a case are not judged by it, whichever cohort they saw it in."""

from pathlib import Path

import pytest

from medexp.errors import LeakageError
from medexp.runs.files import write_json
from medexp.runs.ledger import Run
from medexp.stages.context import Context
from medexp.stages.pretraining import require_unseen
from tests.synthetic.training import make_tracker

PLAN = {"spacing_mm": [1.0] * 3, "patch_size": [8] * 3, "strides": [[1] * 3], "kernel_sizes": [[3] * 3]}


def cohort(
    folder: Path, cases: dict[str, str], *, test: tuple[str, ...] = (), same: dict[str, str] | None = None
) -> Run:
    """Write a prepared cohort of {case: patient} whose fold k validates the k-th training case.

    `same` gives cases the voxels of another name.
    """
    records = [
        {
            "case": case,
            "patient": patient,
            "role": "test" if case in test else "train",
            "store": "00",
            "stored_shape": [8, 8, 8],
            "label": None,
            "channel_sha256": [f"voxels of {(same or {}).get(case, folder.name + case)}", None],
            "images": {"t1": {"path": "x", "sha256": f"bytes of {folder.name}/{case}"}},
        }
        for case, patient in cases.items()
    ]
    train = [case for case in cases if case not in test]
    folds = [{"train": [one for one in train if one != case], "val": [case]} for case in train]
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"format": 1, "dataset": folder.name, "store": "store", "cases": records})
    write_json(folder / "splits_final.json", folds)
    write_json(folder / "plan.json", PLAN)
    return recorded(folder, stage="prepare")


def recorded(folder: Path, **record: object) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, {"identity": folder.name, "created": folder.name, "upstream": {}, **record})
    write_json(folder / "run.json", run.record)
    return run


def training(
    folder: Path, prepared: Run, *, fold: int = 0, initial: Run | None = None, weights: str | None = None
) -> Run:
    """Return a finished training on `prepared`."""
    upstream = {"prepared": [f"../{prepared.name}"]} | ({"initial": [f"../{initial.name}"]} if initial else {})
    received = {"fold": fold, "model": {"weights": weights}}
    run = recorded(folder, stage="1", received=received, upstream=upstream)
    (folder / "best.ckpt").write_text(f"weights of {folder.name}")
    run.write_outputs({"best": folder / "best.ckpt"}, digest=None)
    return run


def judge(
    output: Path, prepared: Run, *, fold: int = 0, initial: Run | None = None, weights: str | None = None
) -> None:
    """Ask about a training on fold `fold` of `prepared`."""
    run = recorded(output / "brats" / "now", stage="2", received={"fold": fold, "model": {"weights": weights}})
    upstream = {"prepared": [prepared]} | ({"initial": [initial]} if initial else {})
    context = Context(run=run, tracker=make_tracker(run), upstream=upstream, output_dir=output)
    require_unseen(context, fold=fold)


@pytest.fixture
def own(tmp_path: Path) -> Run:
    return cohort(tmp_path / "brats" / "own", {"a": "A", "b": "B", "c": "C", "t": "T"}, test=("t",))


def test_the_same_fold_of_the_same_cohort_passes(tmp_path, own):
    judge(tmp_path, own, initial=training(tmp_path / "brats" / "first", own))
    judge(tmp_path, own)


def test_another_fold_of_the_same_cohort_has_seen_the_validation_case(tmp_path, own):
    first = training(tmp_path / "brats" / "first", own, fold=1)
    with pytest.raises(LeakageError, match=r"a \(first\) and a \(here\) are of patient A"):
        judge(tmp_path, own, initial=first)


@pytest.mark.parametrize(("patient", "judged"), [("A", "a (here)"), ("T", "t (here)")])
def test_a_patient_of_another_cohort_is_found_under_another_case_name(tmp_path, own, patient, judged):
    other = cohort(tmp_path / "brats" / "other", {"x": "X", "scan_9": patient})
    with pytest.raises(LeakageError, match="expected the training cases of first") as error:
        judge(tmp_path, own, initial=training(tmp_path / "brats" / "first", other))
    assert f"scan_9 (first) and {judged} are of patient {patient}" in str(error.value)
    assert "upstream.overrides" in str(error.value)


def test_the_same_voxels_under_another_patients_name_are_found(tmp_path, own):
    other = cohort(tmp_path / "brats" / "other", {"x": "X", "y": "Y"}, same={"y": "owna"})
    with pytest.raises(LeakageError, match=r"y \(first\) and a \(here\) hold the same voxels"):
        judge(tmp_path, own, initial=training(tmp_path / "brats" / "first", other))


def test_cases_that_only_validated_the_earlier_training_pass(tmp_path, own):
    other = cohort(tmp_path / "brats" / "other", {"x": "A", "y": "Y"})
    judge(tmp_path, own, initial=training(tmp_path / "brats" / "first", other, fold=0))  # x validates


def test_a_cohort_of_other_people_passes(tmp_path, own):
    other = cohort(tmp_path / "brats" / "other", {"a": "X", "b": "Y"})  # equal case names mean nothing
    judge(tmp_path, own, initial=training(tmp_path / "brats" / "first", other))


def test_weights_of_a_recorded_run_bring_what_they_have_seen(tmp_path, own):
    other = cohort(tmp_path / "brats" / "other", {"x": "X", "scan_9": "A"})
    earlier = training(tmp_path / "brats" / "earlier", other)
    with pytest.raises(LeakageError, match="scan_9"):
        judge(tmp_path, own, weights=earlier.output("best").sha256)
    judge(tmp_path, own, weights="0" * 64)  # nobody recorded these


def test_two_trainings_back_counts_as_well(tmp_path, own):
    other = cohort(tmp_path / "brats" / "other", {"x": "X", "scan_9": "A"})
    earliest = training(tmp_path / "brats" / "earliest", other)
    first = training(tmp_path / "brats" / "first", own, weights=earliest.output("best").sha256)
    with pytest.raises(LeakageError, match=r"scan_9 \(earliest\)"):
        judge(tmp_path, own, initial=first)
