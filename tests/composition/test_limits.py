"""Choices and ranges that signatures state are what configuration is held to."""

import ast
from typing import get_args

import pytest

from medexp.composition.annotations import choices, is_instance
from medexp.composition.composer import compose
from medexp.composition.kinds import in_words
from medexp.composition.sources import load
from medexp.errors import ConfigurationError
from medexp.metrics.lesions import PROTOCOLS, ProtocolName


def read(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        ("Annotated[int, '>= 1']", 1, True),
        ("Annotated[int, '>= 1']", 0, False),
        ("Annotated[int, '>= 1']", 1.5, False),
        ("Annotated[float, '>= 0', '< 1']", 0.0, True),
        ("Annotated[float, '>= 0', '< 1']", 1, False),
        ("Annotated[float, '>= 0', '< 1']", float("nan"), False),
        ("Annotated[int, '>= 1'] | None", None, True),
        ("Sequence[Annotated[float, '> 0']]", [1.0, 0.0], False),
        ("Mapping[str, Annotated[float, '>= 0']]", {"a": -1.0}, False),
        ("Annotated[int, 'voxels']", -5, True),
    ],
)
def test_a_value_is_within_its_range_or_not(annotation, value, fits):
    assert is_instance(value, read(annotation), None) is fits


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Literal['hard', 'copy', 'symbolic']", "hard, copy or symbolic"),
        ("Annotated[int, '>= 1', '<= 999']", "an integer >= 1 and <= 999"),
        ("Annotated[float, '> 0'] | None", "a number > 0 or null"),
        ("Optional[Literal['a', 3]]", "a, 3 or null"),
        ("'Literal[1] | str'", "1 or text"),
        ("Sequence[int] | None", "Sequence[int] | None"),
    ],
)
def test_a_message_spells_out_what_may_be_chosen(annotation, words):
    assert in_words(read(annotation), None) == words


def test_every_protocol_can_be_chosen():
    assert get_args(ProtocolName) == tuple(PROTOCOLS)


def test_choices_are_found_through_several_imports(package):
    package(
        home="from typing import Literal\nWords = Literal['a', 'b']\n",
        hall="from .home import Words\n",
        door="from .hall import Words\n",
    )
    scope = load("ownpackage.door")
    assert choices(read("Words | None"), scope) == ["a", "b"]
    assert is_instance("c", read("Words"), scope) is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prepare.link=had", "prepare.link: expected hard, symbolic or copy, got 'had' (text); did you mean hard?"),
        ("prepare.nnunet_id=1000", "prepare.nnunet_id: expected an integer >= 1 and <= 999, got 1000"),
        ("evaluate.lesion_variant=oficial", "evaluate.lesion_variant: expected official or toolkit, got 'oficial'"),
        ("evaluate.lesions=brats_2024_gil", "evaluate.lesions: expected brats_2024_gli, brats_2024_gli_as_intended"),
        ("dataset.lesions=brats_1999", "dataset.lesions: expected brats_2024_gli"),
        ("evaluate.empty_reference=zero", "evaluate.empty_reference: expected nan or one, got 'zero'"),
        ("evaluate.nsd_tolerances_mm=[1.0,0.0]", "evaluate.nsd_tolerances_mm: expected"),
        ("resume=nevr", "resume: expected auto, require or never, got 'nevr' (text); did you mean never?"),
        ("hardware.precision=bf16-mixd", "hardware.precision: expected 32, 32-true, bf16-mixed or 16-mixed, got"),
        ("hardware.accelerator=tpu", "hardware.accelerator: expected auto, cpu, gpu, cuda or mps, got 'tpu'"),
        ("hardware.num_workers=-1", "hardware.num_workers: expected an integer >= 0 or null, got -1"),
        ("fold=-1", "fold: expected an integer >= 0, got -1"),
        ("seed=-1", "seed: expected an integer >= 0, got -1"),
        ("sweep.max_parallel=0", "sweep.max_parallel: expected an integer >= 1, got 0"),
        ("tracking.flush_every_s=0", "tracking.flush_every_s: expected a number > 0, got 0"),
        ("dataset.batch_size=0", "dataset.batch_size: expected an integer >= 1, got 0"),
        ("dataset.num_folds=1", "dataset.num_folds: expected an integer >= 2, got 1"),
        ("dataset.normalization=zscor", "did you mean zscore"),
        ("dataset.foreground_fraction=1.5", "dataset.foreground_fraction: expected a number >= 0 and <= 1"),
        ("dataset.augmentation.flip_axes=[0] dataset.augmentation.gamma_probability=2", "expected a number >= 0"),
        ("predict.overlap=1.0", "predict.overlap: expected a number >= 0 and < 1, got 1.0"),
        ("predict.window_batch=0", "predict.window_batch: expected an integer >= 1, got 0"),
        ("model.window.overlap=1", "model.window.overlap: expected a number >= 0 and < 1, got 1"),
        ("model.min_weight_coverage=1.1", "model.min_weight_coverage: expected a number >= 0 and <= 1"),
        ("model.curriculum.stage_1.max_epochs=0", "model.curriculum.stage_1.max_epochs: expected an integer >= 1"),
        ("mock.num_patients=0", "mock.num_patients: expected an integer >= 1, got 0"),
        ("report.max_cases=-1", "report.max_cases: expected an integer >= 0, got -1"),
    ],
)
@pytest.mark.parametrize("stage", ["prepare"])
def test_a_choice_or_range_is_refused_whatever_the_stage(stage, override, message):
    with pytest.raises(ConfigurationError) as error:
        compose([f"stage={stage}", *override.split()])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "hardware.precision=32",
        "hardware.precision=bf16-mixed",
        "hardware.accelerator=cuda",
        "hardware.devices=[0,1]",
        "evaluate.lesions=null",
        "prepare.link=copy",
        "report.max_cases=0",
        "callbacks.ema=null",
        "sweep.max_parallel=2",
    ],
)
def test_what_every_reader_takes_passes(override):
    compose(["stage=prepare", override])
