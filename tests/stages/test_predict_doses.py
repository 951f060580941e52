"""Prediction of doses: every source, key and format, ensembles, and what has no meaning for a dose."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from medexp.datasets.doses import PlannedDoses
from medexp.errors import ConfigurationError
from medexp.inference.cleaning import Cleaning
from medexp.inference.dose_writers import DoseFiles
from medexp.inference.sliding_window import SlidingWindow
from medexp.io.dose_case import DoseCase
from medexp.io.dose_npz import read_case_npz, write_case_npz
from medexp.io.dose_prediction_npz import read_prediction_npz
from medexp.models.dose_diffusion import DoseDiffusion
from medexp.models.dose_regression import DoseRegression
from medexp.preparation.dose_archives import find_cases
from medexp.preparation.dose_grid import AsStored
from medexp.runs.ledger import Run
from medexp.stages.context import Context
from medexp.stages.predict import predict
from medexp.tracking import Tracker
from medexp.transforms.dose_augmentation import DoseAugmentation
from tests.synthetic.dose_models import diffusion_settings, regression_settings
from tests.synthetic.doses import VMAT
from tests.synthetic.planning import planned, write_archives

WINDOW = SlidingWindow(overlap=0.25, batch_size=1, skip_background=True)
MIRRORING = {"flip_probability": 0.5}
KINDS = {"unet": (DoseRegression, regression_settings), "ddpm": (DoseDiffusion, diffusion_settings)}


def make_data(root: Path, **changes) -> PlannedDoses:
    values = {
        "name": "archives",
        "find_cases": find_cases,
        "write_mock": lambda *_, **__: False,
        "roots": [root / "raw"],
        "test_roots": [],
        "patient_pattern": None,
        "format": "npz",
        "structures": VMAT,
        "aliases": {},
        "required": ["PTV70"],
        "targets": {"PTV70": 70.0, "PTV56": 56.0},
        "mirrored": [["Femur_L", "Femur_R"]],
        "grid": AsStored(),
        "dose_interpolation": "linear",
        "distance_clip_mm": 50.0,
        "prescription_gy": 70.0,
        "strict_validation": False,
        "split": "folds",
        "holdout_shares": [0.8, 0.1, 0.1],
        "num_folds": 2,
        "split_seed": 42,
        "splits_file": None,
        "patch_size": [16, 16, 16],
        "batch_size": 1,
        "steps_per_epoch": None,
        "patches_per_case": 4,
        "high_dose_fraction": 0.5,
        "augmentation": DoseAugmentation(
            flip_probability=0.5,
            translation_probability=0.0,
            translation_voxels=0,
            rotation_probability=0.0,
            rotation_deg=0.0,
            noise_probability=0.0,
            noise_deviation=0.0,
        ),
    }
    return PlannedDoses(**{**values, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A prepared cohort of four patients in two folds."""
    folder = tmp_path_factory.mktemp("cohort")
    write_archives(folder / "raw", range(4))
    (folder / "prepare").mkdir()
    data = make_data(folder)
    data.cohort().prepare(folder=folder / "prepare", store=folder / "store", skip_bad_cases=False, num_workers=0)
    return folder


def make_run(folder: Path, **record) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, {"identity": folder.name, **record})


def train(root: Path, folder: Path, *, kind: str = "unet", fold: int = 0, seed: int = 0, mirrors: bool = True) -> Run:
    """Return a run with a checkpoint of random weights, as a training run leaves it."""
    data = make_data(root)
    data.open(root / "prepare", fold=fold)
    model_class, settings = KINDS[kind]
    torch.manual_seed(seed)
    model = model_class(**settings(contract=data.contract))
    augmentation = MIRRORING if mirrors else {}
    run = make_run(folder, received={"fold": fold, "datamodule": {"augmentation": augmentation}})
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(content, folder / "best.ckpt")
    run.write_outputs({"best": folder / "best.ckpt"}, digest=None)
    return run


def run_stage(root: Path, folder: Path, trained: list[Run], *, kind: str = "unet", resume: bool = False, **changes):
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
    model_class, settings = KINDS[kind]
    model_settings = settings()
    del model_settings["contract"], model_settings["weights"]
    return predict(
        make_data(root),
        partial(model_class, **{**model_settings, "phase": None}),
        context=Context(run=run, tracker=tracker, upstream=upstream, resume=resume),
        **{**arguments, **changes},
    )


def entries_of(result) -> dict[str, dict]:
    return {entry["case"]: entry for entry in json.loads(result.outputs["predictions"].read_text())["cases"]}


def doses_of(folder: Path, result) -> dict[str, np.ndarray]:
    entries = entries_of(result)
    return {name: read_prediction_npz(folder / entries[name]["prediction"]).dose_gy for name in entries}


def predicted(root: Path, folder: Path, trained: list[Run], **changes) -> dict[str, np.ndarray]:
    return doses_of(folder, run_stage(root, folder, trained, **changes))


@pytest.fixture(scope="module")
def unet(root) -> Run:
    return train(root, root / "unet")


@pytest.fixture(scope="module")
def ddpm(root) -> Run:
    return train(root, root / "ddpm", kind="ddpm")


@pytest.fixture(scope="module")
def plain(root, unet) -> dict[str, np.ndarray]:
    return predicted(root, root / "plain", [unet])


@pytest.fixture(scope="module")
def drawn(root, ddpm) -> dict[str, np.ndarray]:
    return predicted(root, root / "drawn", [ddpm], kind="ddpm")


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_doses_stand_on_the_grid_of_the_references_and_are_never_negative(root, plain):
    assert len(plain) == 2
    for name, dose_gy in plain.items():
        reference = read_case_npz(root / "prepare" / "cases" / f"{name}.npz")
        assert dose_gy.shape == reference.dose_gy.shape
        assert dose_gy.min() == 0.0 < dose_gy.max()


def test_dose_is_the_models_in_gray_at_its_place(root, unet, plain):
    data = make_data(root)
    data.open(root / "prepare", fold=0)
    model = DoseRegression(**regression_settings(contract=data.contract, phase=None))
    model.load_initial(unet.output("best").path)
    model.eval()
    for case in data.cases("validation"):
        with torch.inference_mode():
            fraction = model.infer(data.inputs(case), window=WINDOW)[0].clamp_min(0).numpy()
        np.testing.assert_allclose(plain[case.case], 70.0 * fraction[::-1, ::-1], rtol=1e-5, atol=1e-4)


def test_an_ensemble_of_doses_is_their_mean(root, tmp_path, unet, plain):
    other = train(root, tmp_path / "train", seed=1)
    single = predicted(root, tmp_path / "other", [other])
    both = predicted(root, tmp_path / "both", [unet, other])
    for name in plain:
        # A mean of fractions, of which negative ones count until nothing is negative any more.
        positive = (plain[name] > 0) & (single[name] > 0)
        assert positive.any()
        mean = (plain[name] + single[name]) / 2
        np.testing.assert_allclose(both[name][positive], mean[positive], rtol=1e-5, atol=1e-4)


def test_out_of_fold_each_patient_is_predicted_by_the_model_that_did_not_see_it(root, tmp_path, unet, plain):
    other = train(root, tmp_path / "train", fold=1, seed=1)
    everybody = predicted(root, tmp_path / "all", [unet, other], source="out_of_fold")
    own = plain | predicted(root, tmp_path / "fold1", [other], fold=1)
    assert len(own) == 4
    assert equal(everybody, own)


def test_new_patients_need_no_dose(root, tmp_path, unet):
    new = replace(planned(9), dose_gy=None)
    (tmp_path / "new").mkdir()
    write_case_npz(tmp_path / "new" / "somebody.npz", new, structures=tuple(new.masks), distance_clip_mm=50.0)
    result = run_stage(root, tmp_path / "predict", [unet], source=str(tmp_path / "new"))
    found = doses_of(tmp_path / "predict", result)
    assert list(found) == ["somebody"]
    assert found["somebody"].shape == new.ct_hu.shape


def test_every_format_holds_the_same_dose(root, tmp_path, unet, plain):
    from medexp.io.dose_files import read_dose, turned_to

    formats = DoseFiles(formats=["nifti", "rtdose", "npz"], copy_identity=False)
    entries = entries_of(run_stage(root, tmp_path / "predict", [unet], doses=formats))
    for name, entry in entries.items():
        assert entry["prediction"].endswith(".nii.gz")
        reference: DoseCase = read_case_npz(root / "prepare" / "cases" / f"{name}.npz")
        for ending in (".nii.gz", ".dcm", ".npz"):
            path = (tmp_path / "predict" / entry["prediction"]).with_name(f"{name}{ending}")
            found = turned_to(read_dose(path), reference.affine).dose_gy
            np.testing.assert_allclose(found, plain[name], atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"flips": True},
        {"tile": [16, 16, 32]},
        {"window": SlidingWindow(overlap=0.5, batch_size=2, skip_background=True)},
    ],
    ids=["flips", "tile", "overlap"],
)
def test_keys_of_the_windows_are_used(root, tmp_path, unet, plain, changes):
    assert not equal(predicted(root, tmp_path / "predict", [unet], **changes), plain)


def test_windows_at_once_change_nothing(root, tmp_path, unet, plain):
    several = SlidingWindow(overlap=0.25, batch_size=3, skip_background=True)
    for name, dose_gy in predicted(root, tmp_path / "predict", [unet], window=several).items():
        np.testing.assert_allclose(dose_gy, plain[name], atol=1e-3)


def test_mirrored_copies_of_a_model_that_saw_none_are_refused(root, tmp_path):
    trained = train(root, tmp_path / "train", mirrors=False)
    with pytest.raises(ConfigurationError, match=r"predict\.flips=true"):
        run_stage(root, tmp_path / "predict", [trained], flips=True)


@pytest.mark.parametrize("changes", [{"sampling_steps": 2}, {"noise_seed": 1}, {"flips": True}], ids=str)
def test_keys_of_the_sampling_are_used(root, tmp_path, ddpm, drawn, changes):
    assert not equal(predicted(root, tmp_path / "predict", [ddpm], kind="ddpm", **changes), drawn)


def test_a_dose_is_drawn_again_as_it_was(root, tmp_path, ddpm, drawn):
    again = predicted(root, tmp_path / "predict", [ddpm], kind="ddpm", sampling_steps=4, noise_seed=0)
    assert equal(again, drawn)


def test_an_interrupted_prediction_keeps_what_it_wrote(root, tmp_path, unet):
    first = entries_of(run_stage(root, tmp_path / "predict", [unet]))
    files = [tmp_path / "predict" / entry["prediction"] for entry in first.values()]
    journal = tmp_path / "predict" / "predictions.jsonl"
    journal.write_text("".join(line + "\n" for line in journal.read_text().splitlines()[:-1]))
    files[-1].unlink()
    time = files[0].stat().st_mtime_ns
    again = entries_of(run_stage(root, tmp_path / "predict", [unet], resume=True))
    assert again == first
    assert files[-1].exists()
    assert files[0].stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("save_probabilities: expected false", {"save_probabilities": True}),
        ("min_object_px: expected 0", {"cleaning": Cleaning(min_object_px=5, fill_holes=False)}),
        ("fill_holes: expected false", {"cleaning": Cleaning(min_object_px=0, fill_holes=True)}),
        ("combination: expected average", {"combination": "vote"}),
        (
            "padding: expected zeros",
            {"window": SlidingWindow(overlap=0.25, batch_size=1, skip_background=True, padding="reflect")},
        ),
        ("threshold: expected null", {"threshold": 0.5}),
        ("sampling_steps: expected null", {"sampling_steps": 3}),
        ("noise_seed: expected null", {"noise_seed": 3}),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_a_setting_without_a_meaning_for_doses_is_refused(root, tmp_path, unet, key, changes):
    with pytest.raises(ConfigurationError, match=rf"predict\.{key}"):
        run_stage(root, tmp_path / "predict", [unet], **changes)
    assert not list((tmp_path / "predict").rglob("*.npz"))
