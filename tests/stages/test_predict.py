"""Prediction: what validation measured, on the native grid, by the recorded checkpoints and no others."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medexp.datasets.labelled_volumes import LabelledVolumes
from medexp.errors import CheckpointMismatchError, CohortError, ConfigurationError
from medexp.inference.cleaning import Cleaning
from medexp.inference.dose_writers import DoseFiles
from medexp.inference.sliding_window import SlidingWindow
from medexp.metrics.overlap import dice
from medexp.models.segmentation import Segmentation
from medexp.preparation import brats, mock_brats
from medexp.preparation.cohort import prepare_cohort
from medexp.runs.files import sha256_of
from medexp.runs.ledger import Run
from medexp.stages.context import Context
from medexp.stages.predict import predict
from medexp.tracking import Tracker
from medexp.transforms.augmentation import Augmentation
from tests.synthetic.brats import PATIENT_PATTERN, make_brats
from tests.synthetic.segmentation import settings

WINDOW = SlidingWindow(overlap=0.5, batch_size=1, skip_background=True)


def make_data(root: Path, **changes) -> LabelledVolumes:
    values = {
        "name": "brats",
        "find_cases": brats.find_cases,
        "write_mock": mock_brats.write_mock,
        "roots": [root / "raw"],
        "test_roots": [],
        "require_test_labels": False,
        "patient_pattern": PATIENT_PATTERN,
        "channels": mock_brats.CHANNELS,
        "labels": mock_brats.LABELS,
        "regions": {"WT": ["NETC", "SNFH", "ET"]},
        "label_weights": {},
        "lesions": None,
        "normalization": "zscore_nonzero",
        "spacing_mm": None,
        "num_folds": 2,
        "split_seed": 12345,
        "splits_file": None,
        "patch_size": [16, 16, 16],
        "batch_size": 1,
        "steps_per_epoch": None,
        "foreground_fraction": 0.33,
        "augmentation": Augmentation(flip_axes=()),
    }
    return LabelledVolumes(**{**values, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A prepared cohort of three patients in two folds."""
    folder = tmp_path_factory.mktemp("cohort")
    make_brats(folder / "raw", num_patients=3)
    (folder / "prepare").mkdir()
    prepare_cohort(make_data(folder).cohort(), folder=folder / "prepare", store=folder / "store", num_workers=0)
    return folder


def make_run(folder: Path, **record) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, {"identity": folder.name, **record})


def train(
    root: Path, folder: Path, *, fold: int = 0, seed: int = 0, flip_axes: Sequence[int] = (0, 1, 2), **changes
) -> Run:
    """Return a run with a checkpoint of random weights, as a training run leaves it."""
    data = make_data(root, **changes)
    data.open(root / "prepare", fold=fold)
    torch.manual_seed(seed)
    model = Segmentation(contract=data.contract, phase="stage_2", **settings())
    run = make_run(folder, received={"fold": fold, "datamodule": {"augmentation": {"flip_axes": list(flip_axes)}}})
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(content, folder / "best.ckpt")
    run.write_outputs({"best": folder / "best.ckpt"}, digest=None)
    return run


def run_stage(
    root: Path, folder: Path, trained: list[Run], *, resume: bool = False, data: dict | None = None, **changes
):
    run = make_run(folder)
    tracker = Tracker(
        run, enabled=False, output_dir=folder, uri=None, experiment="toy", strict=False, flush_every_s=1.0
    )
    upstream = {"prepared": [Run(root / "prepare", {"identity": "prepare"})], "trained": trained}
    arguments = {
        "source": "validation",
        "fold": 0,
        "window": WINDOW,
        "flips": False,
        "cleaning": Cleaning(min_object_px=0, fill_holes=False),
        "doses": DoseFiles(formats=["npz"], copy_identity=False),
        "save_probabilities": False,
        "accelerator": "cpu",
        "precision": "32-true",
        "num_workers": 0,
    }
    return predict(
        make_data(root, **(data or {})),
        partial(Segmentation, **settings(weights="absent.pt")),
        context=Context(run=run, tracker=tracker, upstream=upstream, resume=resume),
        **{**arguments, **changes},
    )


def entries_of(result) -> list[dict]:
    return json.loads(result.outputs["predictions"].read_text())["cases"]


def read(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def test_predictions_lie_on_the_grids_of_their_sources(root, tmp_path):
    result = run_stage(root, tmp_path / "predict", [train(root, tmp_path / "train")])
    entries = entries_of(result)
    assert len(entries) > 1
    for entry in entries:
        prediction, source = (
            nib.load(path) for path in (tmp_path / "predict" / entry["prediction"], entry["reference"])
        )
        assert prediction.shape == source.shape
        np.testing.assert_allclose(prediction.affine, source.affine)
        assert prediction.get_data_dtype() == np.uint8


def test_manifest_names_files_sources_and_checkpoints(root, tmp_path):
    trained = train(root, tmp_path / "train")
    result = run_stage(root, tmp_path / "predict", [trained])
    record = json.loads(result.outputs["predictions"].read_text())
    assert record["checkpoints"] == [
        {"path": str(tmp_path / "train" / "best.ckpt"), "sha256": trained.output("best").sha256}
    ]
    entry = record["cases"][0]
    assert sha256_of(tmp_path / "predict" / entry["prediction"]) == entry["sha256"]
    assert list(entry["images"]) == list(mock_brats.CHANNELS)
    assert Path(entry["reference"]).name == f"{entry['case']}-seg.nii.gz"


def test_scores_of_the_files_are_what_validation_measured(root, tmp_path):
    trained = train(root, tmp_path / "train")
    entries = entries_of(run_stage(root, tmp_path / "predict", [trained]))
    data = make_data(root)
    data.open(root / "prepare", fold=0)
    model = Segmentation(contract=data.contract, phase=None, **settings())
    model.load_initial(trained.output("best").path)
    model.eval()
    with torch.inference_mode():
        for index, batch in enumerate(data.val_dataloader()):
            model.validation_step(batch, index)
    measured = model.scores.per_case()
    for name, values in {**{name: (value,) for name, value in data.contract.labels.items()}, "WT": (1, 2, 3)}.items():
        found = [
            dice(
                *(
                    np.isin(read(path), values)
                    for path in (tmp_path / "predict" / entry["prediction"], entry["reference"])
                )
            )
            for entry in entries
        ]
        np.testing.assert_allclose(found, measured[name].numpy(), rtol=1e-6)
    assert any(np.nan_to_num(measured["WT"].numpy()) > 0)


def test_ensemble_averages_probabilities(root, tmp_path):
    runs = [train(root, tmp_path / f"train{seed}", seed=seed) for seed in range(2)]
    names = ["ensemble", "one", "other"]
    saved = {}
    for name, members in zip(names, [runs, runs[:1], runs[1:]], strict=True):
        entry = entries_of(run_stage(root, tmp_path / name, members, save_probabilities=True))[0]
        with np.load(tmp_path / name / entry["probabilities"], allow_pickle=False) as content:
            saved[name] = content["probabilities"].astype(np.float32)
        if name == "ensemble":
            label = read(tmp_path / name / entry["prediction"])
            chosen = np.take_along_axis(saved[name], label[None].astype(np.intp), 0)[0]
            np.testing.assert_allclose(chosen, saved[name].max(0), atol=1e-3)  # float16 makes ties
    np.testing.assert_allclose(saved["ensemble"], (saved["one"] + saved["other"]) / 2, atol=2e-3)


def test_ensemble_of_models_with_different_contracts_is_refused(root, tmp_path):
    runs = [train(root, tmp_path / "one"), train(root, tmp_path / "other", patch_size=[20, 16, 16])]
    with pytest.raises(CheckpointMismatchError, match=r"other.best\.ckpt.*patch_size"):
        run_stage(root, tmp_path / "predict", runs)


def test_model_of_another_order_of_channels_is_refused(root, tmp_path):
    trained = train(root, tmp_path / "train")
    with pytest.raises(CheckpointMismatchError, match="channels"):
        run_stage(root, tmp_path / "predict", [trained], data={"channels": mock_brats.CHANNELS[::-1]})


def test_validation_cases_are_not_predicted_by_a_model_that_trained_on_them(root, tmp_path):
    runs = [train(root, tmp_path / f"train{fold}", fold=fold) for fold in range(2)]
    with pytest.raises(ConfigurationError, match=r"expected \[0\].*folds \[1\], which trained on these cases"):
        run_stage(root, tmp_path / "predict", runs)


def test_each_case_is_predicted_out_of_fold_by_the_model_that_did_not_see_it(root, tmp_path):
    runs = [train(root, tmp_path / f"train{fold}", fold=fold, seed=fold) for fold in (0, 1)]
    entries = entries_of(run_stage(root, tmp_path / "all", runs, source="out_of_fold"))
    assert len(entries) == 4  # the first of three patients has two visits: the whole cohort
    for fold, run in enumerate(runs):
        single = tmp_path / f"fold{fold}"
        own = entries_of(run_stage(root, single, [run], fold=fold))
        assert own
        for entry in own:
            [same] = [one for one in entries if one["case"] == entry["case"]]
            assert same["sha256"] == entry["sha256"]
            np.testing.assert_array_equal(
                read(tmp_path / "all" / same["prediction"]), read(single / entry["prediction"])
            )


def test_cases_of_a_fold_that_nobody_asked_for_are_named(root, tmp_path, caplog):
    result = run_stage(root, tmp_path / "some", [train(root, tmp_path / "train")], source="out_of_fold")
    manifest = json.loads(result.outputs["predictions"].read_text())
    predicted = {entry["case"] for entry in manifest["cases"]}
    assert predicted
    assert set(manifest["not_predicted"]).isdisjoint(predicted)
    assert len(predicted) + len(manifest["not_predicted"]) == 4
    assert "are in no fold that was asked for" in caplog.text


def test_folder_is_predicted_by_an_ensemble_of_folds_without_any_label(root, tmp_path):
    make_brats(tmp_path / "unseen", num_patients=1, seed=9)
    for label in (tmp_path / "unseen").rglob("*-seg.nii.gz"):
        label.unlink()
    runs = [train(root, tmp_path / f"train{fold}", fold=fold) for fold in range(2)]
    entries = entries_of(run_stage(root, tmp_path / "predict", runs, source=str(tmp_path / "unseen")))
    assert len(entries) == 2
    assert all(entry["reference"] is None for entry in entries)
    assert all((tmp_path / "predict" / entry["prediction"]).exists() for entry in entries)


def test_source_without_cases_is_an_error(root, tmp_path):
    with pytest.raises(CohortError, match=r"predict\.source=test"):
        run_stage(root, tmp_path / "predict", [train(root, tmp_path / "train")], source="test")


def test_checkpoint_that_changed_since_is_refused(root, tmp_path):
    trained = train(root, tmp_path / "train")
    path = trained.output("best").path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        run_stage(root, tmp_path / "predict", [trained])


def test_hostile_checkpoint_is_never_run(root, tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "mark",)

    trained = make_run(tmp_path / "train", received={"fold": 0})
    torch.save({"state_dict": {}, "hyper_parameters": {"_instantiator": Payload()}}, tmp_path / "train" / "best.ckpt")
    trained.write_outputs({"best": tmp_path / "train" / "best.ckpt"}, digest=None)
    with pytest.raises(CheckpointMismatchError, match="nothing of it was run"):
        run_stage(root, tmp_path / "predict", [trained])
    assert not (tmp_path / "mark").exists()


def test_interrupted_prediction_keeps_what_it_wrote(root, tmp_path):
    trained = train(root, tmp_path / "train")
    first = entries_of(run_stage(root, tmp_path / "predict", [trained]))
    files = [tmp_path / "predict" / entry["prediction"] for entry in first]
    files[0].write_bytes(b"damaged")
    times = [file.stat().st_mtime_ns for file in files]
    again = entries_of(run_stage(root, tmp_path / "predict", [trained], resume=True))
    assert again == first
    assert sha256_of(files[0]) == first[0]["sha256"]
    assert [file.stat().st_mtime_ns for file in files[1:]] == times[1:]


def test_predictions_of_other_weights_are_made_again(root, tmp_path):
    runs = [train(root, tmp_path / f"train{seed}", seed=seed) for seed in range(2)]
    run_stage(root, tmp_path / "predict", runs[:1])
    again = entries_of(run_stage(root, tmp_path / "predict", runs[1:], resume=True))
    fresh = entries_of(run_stage(root, tmp_path / "fresh", runs[1:]))
    assert [entry["sha256"] for entry in again] == [entry["sha256"] for entry in fresh]


def test_journal_cut_in_the_middle_of_a_line_is_readable(root, tmp_path):
    trained = train(root, tmp_path / "train")
    first = entries_of(run_stage(root, tmp_path / "predict", [trained]))
    journal = tmp_path / "predict" / "predictions.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert entries_of(run_stage(root, tmp_path / "predict", [trained], resume=True)) == first


def test_flips_are_used(root, tmp_path):
    trained = train(root, tmp_path / "train")
    plain, flipped = (
        entries_of(run_stage(root, tmp_path / f"flips{flips}", [trained], flips=flips)) for flips in (False, True)
    )
    assert [entry["sha256"] for entry in plain] != [entry["sha256"] for entry in flipped]


def test_copies_are_mirrored_along_the_axes_of_the_training(root, tmp_path, monkeypatch):
    asked = []

    def segment(self, image, *, flip_axes, **_):
        asked.append(flip_axes)
        return torch.full((5, *image.shape[1:]), 0.2)

    monkeypatch.setattr(Segmentation, "segment", segment)
    trained = [train(root, tmp_path / "some", flip_axes=[0]), train(root, tmp_path / "all", seed=1)]
    run_stage(root, tmp_path / "predict", trained, flips=True)
    assert set(asked) == {(0,), (0, 1, 2)}
    asked.clear()
    run_stage(root, tmp_path / "plain", trained)
    assert set(asked) == {()}


def test_mirrored_copies_of_a_model_that_saw_none_are_refused(root, tmp_path):
    trained = train(root, tmp_path / "train", flip_axes=[])
    with pytest.raises(ConfigurationError, match=r"predict\.flips=true.*flip_axes"):
        run_stage(root, tmp_path / "predict", [trained], flips=True)
