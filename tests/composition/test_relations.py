"""Keys that no type can judge alone: folds, stages and folders that must be there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from medexp.composition.composer import checked, compose
from medexp.errors import ConfigurationError


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        compose(overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fold=5", "fold: expected 0 to 4, because dataset.num_folds says 5 folds, got 5"),
        ("predict.folds=[0,9]", "predict.folds: expected 0 to 4"),
        ("predict.stage=7", "predict.stage: expected null or a stage of the model's curriculum (1, 2), got 7"),
        ("predict.source=validaton", "got 'validaton'; did you mean validation?"),
        ("predict.source=/no/such/folder", "an existing folder, got '/no/such/folder'; check the path"),
        ("evaluate.predictions=/no/such/folder", "evaluate.predictions: expected one of null, an existing folder"),
        (
            "dataset.required=[PTV7]",
            "dataset.required: expected names of dataset.structures, got PTV7; did you mean PTV70",
        ),
        (
            "+dataset.targets.PTV6=60",
            "dataset.targets: expected names of dataset.structures, got PTV6; did you mean PTV",
        ),
        ("+dataset.aliases.Rectm=[a]", "got Rectm; did you mean Rectum?"),
        ("evaluate.references=/no/such/folder", "evaluate.references: expected one of null, an existing folder"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(override, message):
    data = ["dataset=vmat"] if "dataset." in override else []
    assert message in refusal("stage=prepare", *data, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.aliases.Rectm=[a]", "did you mean dataset.aliases.Rectum? To add it all the same, write +dataset.al"),
        (
            "dataset.roots=/data/vmat",
            "expected a list, Sequence[str | Path], got '/data/vmat' (text); write [/data/vmat]",
        ),
        (
            "predict.dose_formats=[npz,rtdos]",
            "expected npz, nifti or rtdose, got 'rtdos' (text); did you mean rtdose? in",
        ),
    ],
)
def test_a_slip_in_a_name_of_free_choice_or_in_a_list_gets_the_nearest(override, message):
    assert message in refusal("dataset=vmat", "stage=prepare", override)


def test_the_last_fold_passes():
    assert compose(["stage=1", "fold=4"]).fold == 4
    assert compose(["stage=1", "fold=6", "dataset.num_folds=7"]).fold == 6


def test_a_split_file_says_how_many_folds_there_are(tmp_path):
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    assert compose(["stage=1", f"dataset.splits_file={file}", "fold=2"]).fold == 2
    assert "dataset.splits_file says 3 folds, got 3" in refusal("stage=1", f"dataset.splits_file={file}", "fold=3")


def test_a_folder_that_an_earlier_stage_may_make_passes(tmp_path):
    for override in ("predict.source=${mock.root}", f"predict.source={tmp_path}/multirun/later"):
        compose(["stage=predict", override, f"output_dir={tmp_path}/multirun"])


def test_a_folder_that_is_there_passes(tmp_path):
    assert compose(["stage=predict", f"predict.source={tmp_path}"]).predict.source == str(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        ["stage=1,2", "fold=0,7"],
        ["stage=prepare,1", "dataset.num_folds=5,3", "fold=0,4"],
        ["stage=prepare,1", "dataset.num_folds=3,5", "fold=0,4"],
    ],
)
def test_one_job_of_a_sweep_with_a_fold_too_many_refuses_the_sweep(line):
    with pytest.raises(ConfigurationError, match="fold: expected 0 to"):
        checked(line, multirun=True)


def test_weights_that_a_library_would_fetch_are_refused():
    line = ["dataset=spheroids", "model=spheroid_unet", "stage=1", "model.network.encoder_weights=imagenet"]
    with pytest.raises(ConfigurationError, match=r"encoder_weights: expected null.*model\.weights"):
        compose(line)


def test_the_documented_line_of_corrected_masks_composes():
    page = (Path(__file__).parents[2] / "docs" / "applications" / "spheroids.md").read_text()
    [line] = re.findall(r"python -m medexp\.run (.*stage=2.*\\\n.*)", page)
    words = [
        word
        for word in shlex.split(line.replace("\\\n", " ").replace("<corrected>", "/corrected"))
        if not word.startswith("dataset.roots=")
    ]
    config = compose(words)
    assert config.upstream.overrides == ["dataset.find_cases.corrections=[]"]
