import pytest

from medexp.composition.targets import Position, check_target, is_allowed
from medexp.errors import TargetNotAllowedError


@pytest.mark.parametrize(
    "written",
    [
        "lightning.Trainer",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.nn.modules.linear.Linear",
        "monai.networks.nets.SegResNet",
        "monai.losses.DiceCELoss",
        "segmentation_models_pytorch.Unet",
        "medexp.losses.overlap.DiceCrossEntropy",
        "medexp.models.curriculum.constant",
        "medexp.stages.fit.fit",
        "medexp.preparation.brats.find_cases",
    ],
)
def test_what_configuration_is_meant_to_build_is_allowed(written):
    assert check_target(written, key="key._target_").written == written


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("monai.networks.nets.SegResnet", "did you mean SegResNet"),
        ("medexp.models.curriculum.polynomal", "did you mean polynomial"),
        ("torch.nn.functional.torch.load", r"it is torch\.serialization\.load"),
        ("torch.nn.functional.relu", "not allowed"),
        ("medexp.stages.fit.build_trainer", "not"),
        ("medexp.preparation.store.store_case", "not"),
        ("medexp.losses._private.Thing", "not allowed"),
        ("medexp.runs.files.atomic_write", "not allowed"),
        (None, "expected the dotted name"),
        ("torch.nn.", "expected the dotted name"),
        ("torch.nn.Linear ", "expected the dotted name"),
        (["torch.nn.Linear"], "expected the dotted name"),
    ],
)
def test_everything_else_is_refused_by_key_and_name(written, reason):
    with pytest.raises(TargetNotAllowedError, match=rf"^model\.x\._target_.*{reason}"):
        check_target(written, key="model.x._target_")


def test_the_message_says_how_to_admit_a_package():
    with pytest.raises(TargetNotAllowedError, match="MEDEXP_ALLOW_TARGETS"):
        check_target("os.system", key="x")


def test_the_environment_admits_a_package(package, monkeypatch):
    package(parts="class Thing: ...\ndef thing(): ...\n", partsx="class Thing: ...\n")
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "otherpackage, ownpackage.parts.")
    assert check_target("ownpackage.parts.Thing", key="x").definition.is_class
    assert not check_target("ownpackage.parts.thing", key="x").called_later
    with pytest.raises(TargetNotAllowedError, match="not allowed"):
        check_target("ownpackage.partsx.Thing", key="x")


def test_an_admitted_package_leads_nowhere_else(package, monkeypatch):
    package(parts="from os import system\nimport shutil\nfrom torch.nn import Linear\n")
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "ownpackage")
    for written in ("ownpackage.parts.system", "ownpackage.parts.shutil.rmtree", "ownpackage.parts.Linear"):
        with pytest.raises(TargetNotAllowedError, match=r"not allowed|does not resolve"):
            check_target(written, key="x")


@pytest.mark.parametrize(
    ("position", "inside", "outside"),
    [
        (Position.LAUNCHER, "hydra_plugins.medexp_launcher.isolated.IsolatedLauncher", "torch.nn.Linear"),
        (Position.SWEEPER, "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "optuna.storages.RDBStorage"),
        (Position.LOGGING, "logging.StreamHandler", "logging.FileHandler"),
        (Position.CALLBACK, "hydra.experimental.callbacks.LogJobReturnCallback", "torch.nn.Linear"),
        (Position.CONFIGURATION, "torch.nn.Linear", "logging.StreamHandler"),
    ],
)
def test_every_position_has_its_own_list(position, inside, outside):
    check_target(inside, key="x", position=position)
    assert is_allowed(inside, position)
    assert not is_allowed(outside, position)
    with pytest.raises(TargetNotAllowedError):
        check_target(outside, key="x", position=position)


def test_functions_of_medexp_are_only_named_never_called():
    assert check_target("medexp.models.curriculum.constant", key="x").called_later
    assert not check_target("medexp.models.curriculum.Phase", key="x").called_later
