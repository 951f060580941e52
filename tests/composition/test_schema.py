"""Every key and value of the shipped configuration, as the command line and experiments may change it."""

import pytest

from medexp.composition import checked, compose
from medexp.errors import ConfigurationError, UnknownOptionError


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("+fould=1", "fould: no such key; did you mean fold?"),
        ("fould=1", "fould: no such key; did you mean fold?"),
        ("+num_folds=2", "num_folds: no such key; did you mean dataset.num_folds?"),
        ("dataset.num_fold=2", "dataset.num_fold: .* did you mean dataset.num_folds?"),
        ("+dataset.num_fold=2", "dataset.num_fold: .* did you mean dataset.num_folds?"),
        ("++dataset.num_fold=2", "dataset.num_fold: .* did you mean dataset.num_folds?"),
        ("+dataset.augmentation.flip_axis=[0]", "did you mean dataset.augmentation.flip_axes"),
        ("model.network.init_filter=8", "did you mean model.network.init_filters"),
        ("model.curriculum.stage_1.max_epoch=3", "did you mean model.curriculum.stage_1.max_epochs"),
        ("model.curriculum.stage_1.optimizer.weight_deca=0", "did you mean .*optimizer.weight_decay"),
        ("+model.curriculum.stag_1.max_epochs=3", "did you mean model.curriculum.stage_1"),
        ("+callbacks.eam.decay=0.5", "did you mean callbacks.ema"),
        ("+hardware.num_worker=2", "did you mean hardware.num_workers"),
        ("predict.flip=true", "did you mean predict.flips"),
        ("+tracking.ury=x", "did you mean tracking.uri"),
        ("+stage.curiculum=stage_1", "did you mean stage.curriculum"),
        ("+trainer.max_epoch=3", "did you mean trainer.max_epochs"),
        ("+hydra.jobs=1", "did you mean hydra.job"),
        ("hydra.sweep.dirr=x", "did you mean hydra.sweep.dir"),
        ("hydra.launcher.max_paralel=2", "did you mean hydra.launcher.max_parallel"),
        ("+model.network._partail_=true", "model.network._partail_"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest(override, suggestion):
    with pytest.raises(UnknownOptionError, match=suggestion):
        checked([override])


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("datset=brats", "datset: no such key; did you mean dataset?"),
        ("+datset=brats", "datset: no such key; did you mean dataset?"),
        ("expriment=demo", "did you mean experiment?"),
        ("dataset=brast", "dataset=brast: no such option; did you mean brats?"),
        ("dataset/augmentation=ligth", "dataset/augmentation=ligth: no such option; did you mean light?"),
        ("dataset/augmentatio=light", "did you mean dataset/augmentation"),
        ("experiment=demoo", "did you mean demo?"),
        ("stage=3", "stage=3: no such option; there are 1, 2,"),
        ("hydra/launcher=isolate", "hydra/launcher=isolate: no such option; did you mean isolated?"),
    ],
)
def test_a_misspelt_group_or_option_is_refused_with_the_nearest(override, suggestion):
    with pytest.raises(UnknownOptionError, match=suggestion.replace("?", r"\?")):
        checked([override])


@pytest.mark.parametrize(
    ("content", "suggestion"),
    [
        ("datset: {num_folds: 2}", "did you mean dataset?"),
        ("dataset: {num_fold: 2}", "did you mean dataset.num_folds?"),
        ("model: {curriculum: {stag_1: {max_epochs: 2}}}", "did you mean model.curriculum.stage_1"),
        ("predikt: {overlap: 0.2}", "did you mean predict?"),
        ("defaults:\n  - override /datset: brats", "did you mean dataset?"),
        ("defaults:\n  - override /dataset: brast", "dataset=brast: no such option; did you mean brats?"),
        ("defaults:\n  - overide /dataset: brats", "override"),
        ("defaults:\n  - optinal /dataset: brats", "override"),
        ("defaults:\n  - override /stage: 2", "int"),
        ("dataset: {num_folds: 2", "no valid YAML"),
    ],
)
def test_an_experiment_with_a_mistake_is_refused(content, suggestion, config_dir):
    folder = config_dir(experiment__own=f"# @package _global_\n{content}\n")
    with pytest.raises(ConfigurationError, match=suggestion.replace("?", r"\?")):
        checked(["experiment=own"], config_dirs=[folder])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.num_folds=abc", "dataset.num_folds: expected an integer >= 2, got 'abc'"),
        ("dataset.num_folds=2.5", "dataset.num_folds: expected an integer >= 2, got 2.5"),
        ("dataset.num_folds=true", "dataset.num_folds: expected an integer >= 2, got True"),
        ("dataset.num_folds=null", "dataset.num_folds: expected an integer >= 2, got null"),
        ("dataset.roots=/data", "dataset.roots: expected .*, got '/data'"),
        ("dataset.patch_size=[a,b]", "dataset.patch_size: expected"),
        ("+dataset.labels.NEW=x", "dataset.labels.NEW: expected int, got 'x'"),
        ("model.curriculum.stage_1.optimizer.lr=fast", "optimizer.lr: expected"),
        ("model.network.init_filters=many", "init_filters: expected int"),
        ("fold=abc", "fold: expected .*, got 'abc'"),
        ("fold=null", "fold: expected .*, got null"),
        ("tracking=false", "tracking: expected a mapping with enabled"),
        ("tracking.enabled=1", "tracking.enabled: expected"),
        ("tracking.enabled=perhaps", "tracking.enabled: expected"),
        ("mock.shape=96", "mock.shape: expected"),
        ("mock.shape=[a,b]", "mock.shape: expected"),
        ("hardware.num_workers=abc", "hardware.num_workers: expected .*an integer"),
        ("hardware.devices={a:1}", "hardware.devices: expected"),
        ("predict.overlap=half", "predict.overlap: expected"),
        ("sweep.max_parallel=all", "sweep.max_parallel: expected"),
        ("model._partial_=1", "model._partial_: expected true or false"),
    ],
)
def test_a_value_of_another_kind_is_refused(override, expected):
    with pytest.raises(ConfigurationError, match=expected):
        checked([override])


@pytest.mark.parametrize(
    "override",
    [
        "+trainer.fast_dev_run=true",
        "+model.curriculum.stage_1.optimizer.amsgrad=true",
        "+dataset.regions.RC=[RC]",
        "dataset.label_weights.RC=2",
        "~dataset.regions.WT",
        "~callbacks.ema",
        "callbacks.ema=null",
        "callbacks.ema.decay=0",
        "callbacks.ema.decay=${fold}",
        "+callbacks.own={_target_:lightning.pytorch.callbacks.DeviceStatsMonitor}",
        "hardware.devices=[0,1]",
        "hardware.devices=auto",
        "hardware.num_workers=2",
        "hardware.num_workers=null",
        "hardware.precision=32",
        "trainer.limit_train_batches=2",
        "dataset.patch_size=[96,96,96]",
        "dataset.spacing_mm=[1,1,1.5]",
        "dataset.steps_per_epoch=10",
        "dataset.splits_file=/x/splits_final.json",
        "name=2024",
        "run=1234567",
        "predict.stage=1",
        "predict.folds=[0,1]",
        "evaluate.predictions=/",
        "model.weights=null",
        "upstream.overrides=[dataset=nnunet]",
        "hydra/launcher=basic",
        "hydra/sweeper=basic",
        "hydra/job_logging=stdout",
        "hydra.verbose=true",
        "+hydra.job.env_set.OMP_NUM_THREADS='2'",
    ],
)
def test_a_sound_override_passes(override):
    assert checked([override, "stage=1"] if "stage" not in override.split("=")[0] else [override]).overrides


def test_an_argument_that_the_file_leaves_out_needs_a_plus():
    with pytest.raises(UnknownOptionError, match=r"exists, but no file sets it here; add it with \+trainer.fast_dev"):
        checked(["trainer.fast_dev_run=true"])


def test_a_key_that_is_there_needs_no_plus():
    with pytest.raises(ConfigurationError, match="exists already"):
        checked(["+fold=1"])


def test_a_group_that_is_chosen_needs_no_plus():
    with pytest.raises(ConfigurationError, match=r"\+dataset: the group is chosen already"):
        checked(["+dataset=hippocampus"])


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(UnknownOptionError) as raised:
        checked(["+typo_a=1", "+dataset.typo_b=2", "fold=abc"])
    assert all(key in str(raised.value) for key in ("typo_a:", "dataset.typo_b:", "fold:"))


def test_a_mistake_is_told_once_though_the_stage_repeats_the_node():
    with pytest.raises(UnknownOptionError) as raised:
        checked(["+dataset.num_fold=2", "stage=1"])
    assert "stage.call" not in str(raised.value)


def test_a_missing_argument_is_named():
    with pytest.raises(ConfigurationError, match=r"^dataset: expected num_folds too"):
        checked(["~dataset.num_folds"])


def test_a_part_without_its_target_is_refused():
    with pytest.raises(ConfigurationError, match=r"model\.network\._target_"):
        checked(["~model.network._target_"])
    with pytest.raises(ConfigurationError, match=r"dataset\._target_"):
        checked(["~dataset._target_"])


def test_an_open_signature_takes_any_name(package, config_dir, monkeypatch):
    package(parts="class Open:\n    def __init__(self, **others): ...\n")
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "ownpackage")
    content = "# @package _global_\ncallbacks: {own: {_target_: ownpackage.parts.Open, anything: {goes: [1]}}}\n"
    folder = config_dir(experiment__own=content)
    assert compose(["experiment=own"], config_dirs=[folder]).callbacks.own.anything.goes == [1]


@pytest.mark.parametrize("name", ["decoder_chanels", "encoder_nam", "Decoder_channel"])
def test_a_slip_is_refused_by_an_open_signature_as_well(name):
    line = ["dataset=spheroids", "model=spheroid_unet", "stage=1", f"+model.network.{name}=[16,8,8]"]
    with pytest.raises(
        ConfigurationError,
        match=rf"model\.network\.{name}: .*did you mean model\.network\.(decoder_channels|encoder_name)",
    ):
        checked(line)


def test_an_open_signature_takes_names_that_are_like_none_of_its_own():
    line = ["dataset=spheroids", "model=spheroid_unet", "stage=1", "+model.network.output_stride=16"]
    assert compose(line).model.network.output_stride == 16


def test_a_literal_offers_its_words(package, config_dir, monkeypatch):
    source = "from typing import Literal\nclass Part:\n    def __init__(self, mode: Literal['min', 'max']): ...\n"
    package(parts=source)
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "ownpackage")
    content = "# @package _global_\ncallbacks: {own: {_target_: ownpackage.parts.Part, mode: maxx}}\n"
    with pytest.raises(ConfigurationError, match=r"callbacks\.own\.mode: expected .*; did you mean max"):
        checked(["experiment=own"], config_dirs=[config_dir(experiment__own=content)])
