"""T16: hostile configuration. Whatever would run leaves the canary untouched, and the message names key and remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

from medexp.composition import checked, compose
from medexp.errors import ConfigurationError, TargetNotAllowedError

_LISTED = """
torch.load torch.save torch.hub.load torch.utils.cpp_extension.load torch.package.PackageImporter torch.jit.load
torch.serialization.load torch._dynamo.disable torch.nn.functional.torch.load torch.nn.modules.module.torch.save
torch.optim.optimizer.warnings.warn torch.optim.lr_scheduler.types.FunctionType torch.nn.init.torch.load
torch.nn.Module.load_state_dict torch.nn.Module.__init__ torch.nn.Linear.__class__ torch.nn.utils.parametrize.copy.copy
joblib.load numpy.load pandas.read_pickle sympy.sympify builtins.open builtins.eval builtins.exec builtins.__import__
shutil.copy shutil.rmtree urllib.request.urlretrieve mlflow.pyfunc.load_model os.system posix.system os.path.os.system
subprocess.run subprocess.Popen pickle.load cloudpickle.load yaml.unsafe_load importlib.import_module runpy.run_path
pathlib.Path pathlib.Path.write_text tempfile.NamedTemporaryFile functools.partial types.FunctionType ctypes.CDLL
hydra.utils.get_method hydra.utils.instantiate logging.FileHandler logging.config.dictConfig webbrowser.open
monai.bundle.ConfigParser monai.data.MetaTensor monai.networks.nets.resnet.get_pretrained_resnet_medicalnet
monai.networks.nets.torch.load segmentation_models_pytorch.from_pretrained segmentation_models_pytorch.create_model
lightning.pytorch.LightningModule.load_from_checkpoint lightning.pytorch.cli.LightningCLI
lightning.pytorch.callbacks.ModelCheckpoint.on_load_checkpoint
lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree
medexp.runs.files.atomic_write medexp.composition.build.instantiate medexp.run.main medexp.sweeps.isolated.run_isolated
medexp.io.prepared.PreparedCohort medexp.tracking.tracker.Tracker medexp.errors.MedexpError
medexp.models.segmentation.torch.load medexp.models.segmentation.Segmentation.load_state_dict
medexp.callbacks.checkpoints.os.remove medexp.preparation.store.shutil.rmtree
medexp.preparation.nnunet_layout.shutil.copy
monai.losses.PerceptualLoss medexp.preparation.mock_folder.MockFolder medexp.preparation.store.store_case
medexp.stages.fit.Trainer medexp.stages.context.Context medexp.networks.unet.nn.Module
"""
_TARGETS = _LISTED.split()

_EVIL = """\
# @package _global_
callbacks:
  evil:
    _target_: {target}
    command: touch {canary}
"""


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("cage") / "canary"


@pytest.fixture(scope="module")
def evil_dir(tmp_path_factory, canary):
    """One folder with every hostile experiment, so that the harmless files are read once."""
    folder = tmp_path_factory.mktemp("evil") / "experiment"
    folder.mkdir()
    for index, target in enumerate(_TARGETS):
        (folder / f"target{index}.yaml").write_text(_EVIL.format(target=target, canary=canary))
    for index, (_, content) in enumerate(_PLACES.values()):
        content = content.replace(": C", f": touch {canary}")
        (folder / f"place{index}.yaml").write_text(f"# @package _global_\n{content}\n")
    return folder.parent


def test_there_are_at_least_forty():
    assert len(set(_TARGETS)) == len(_TARGETS) >= 40


@pytest.mark.parametrize("target", _TARGETS)
def test_a_hostile_target_is_refused(target, evil_dir, canary):
    with pytest.raises(TargetNotAllowedError, match=r"callbacks\.evil\._target_") as raised:
        checked([f"experiment=target{_TARGETS.index(target)}"], config_dirs=[evil_dir])
    assert target in str(raised.value)
    assert not canary.exists()


# What an experiment of one's own may contain, by where the target hides.
_PLACES = {
    "partial": ("callbacks.evil._target_", "callbacks: {evil: {_target_: os.system, _partial_: true, command: C}}"),
    "nested argument": (
        "callbacks.ema.decay._target_",
        "callbacks: {ema: {decay: {_target_: os.system, command: C}}}",
    ),
    "list": ("dataset.roots[1]._target_", "dataset: {roots: [a, {_target_: os.system, command: C}]}"),
    "list in a list": ("dataset.roots[0][0]._target_", "dataset: {roots: [[{_target_: os.system, command: C}]]}"),
    "free-form mapping": (
        "dataset.regions.evil._target_",
        "dataset: {regions: {evil: {_target_: os.system, command: C}}}",
    ),
    "replaced": ("model.network._target_", "model: {network: {_target_: os.system, command: C}}"),
    "below a refused node": (
        "callbacks.evil.inner._target_",
        "callbacks: {evil: {_target_: nowhere.Thing, inner: {_target_: os.system, command: C}}}",
    ),
    "interpolated": (
        "callbacks.evil._target_",
        "name: os.system\ncallbacks: {evil: {_target_: '${name}', command: C}}",
    ),
    "put together": (
        "callbacks.evil._target_",
        "name: system\ncallbacks: {evil: {_target_: 'os.${name}', command: C}}",
    ),
    "from the environment": (
        "callbacks.evil._target_",
        "callbacks: {evil: {_target_: '${oc.env:EVIL,os.system}', command: C}}",
    ),
    "unresolvable": ("callbacks.evil._target_", "callbacks: {evil: {_target_: '${nowhere}', command: C}}"),
    "made by a resolver": (
        "dataset.roots._target_",
        "dataset: {roots: '${oc.create:{_target_: os.system, command: C}}'}",
    ),
    "decoded": ("dataset.roots._target_", "dataset: {roots: '${oc.decode:\"{_target_: os.system, command: C}\"}'}"),
    "node from elsewhere": (
        "dataset.regions.evil._target_",
        "dataset: {regions: {evil: {_target_: os.system}}}\nprepare: {store: '${dataset.regions.evil}'}",
    ),
    "a part that the stage does not use": (
        "trainer.logger._target_",
        "trainer: {logger: {_target_: os.system, command: C}}",
    ),
    "stage": ("stage.call._target_", "stage: {call: {_target_: os.system, command: C}}"),
    "callback of Hydra": (
        "hydra.callbacks.evil._target_",
        "hydra: {callbacks: {evil: {_target_: os.system, command: C}}}",
    ),
    "callback of Hydra, pickling": (
        "hydra.callbacks.evil._target_",
        "hydra: {callbacks: {evil: {_target_: hydra.experimental.callbacks.PickleJobInfoCallback}}}",
    ),
    "nested callback of Hydra": (
        "hydra.callbacks.evil.inner._target_",
        "hydra: {callbacks: {evil: {inner: {_target_: os.system, command: C}}}}",
    ),
    "launcher": ("hydra.launcher._target_", "hydra: {launcher: {_target_: os.system}}"),
    "argument of the launcher": (
        "hydra.launcher.max_parallel._target_",
        "hydra: {launcher: {max_parallel: '${oc.create:{_target_: os.system, command: C}}'}}",
    ),
    "sweeper": ("hydra.sweeper._target_", "hydra: {sweeper: {_target_: os.system}}"),
    "class of a log": (
        "hydra.job_logging.handlers.evil.class",
        "hydra: {job_logging: {handlers: {evil: {class: logging.FileHandler, filename: C, mode: w}}}}",
    ),
    "factory of a log": (
        "hydra.job_logging.handlers.evil.()",
        "hydra: {job_logging: {handlers: {evil: {(): os.system, command: C}}}}",
    ),
    "formatter of a log": (
        "hydra.hydra_logging.formatters.evil.()",
        "hydra: {hydra_logging: {formatters: {evil: {(): os.system, command: C}}}}",
    ),
    "filter of a log": (
        "hydra.job_logging.filters.evil.()",
        "hydra: {job_logging: {filters: {evil: {(): os.system, command: C}}}}",
    ),
    "queue of a log": (
        "hydra.job_logging.handlers.evil.queue",
        "hydra: {job_logging: {handlers: {evil: {class: logging.StreamHandler, queue: os.system}}}}",
    ),
    "external object of a log": (
        "hydra.job_logging.handlers.evil.stream",
        "hydra: {job_logging: {handlers: {evil: {class: logging.StreamHandler, stream: 'ext://os.system'}}}}",
    ),
    "interpolated class of a log": (
        "hydra.job_logging.handlers.evil.class",
        "name: os.system\nhydra: {job_logging: {handlers: {evil: {class: '${name}'}}}}",
    ),
    "attributes of a log": (
        "hydra.job_logging.handlers.evil..",
        "hydra: {job_logging: {handlers: {evil: {class: logging.StreamHandler, '.': 'x'}}}}",
    ),
    "environment of jobs": ("hydra.job.env_set.PYTHONPATH", "hydra: {job: {env_set: {PYTHONPATH: C}}}"),
    "environment that admits": (
        "hydra.job.env_set.MEDEXP_ALLOW_TARGETS",
        "hydra: {job: {env_set: {MEDEXP_ALLOW_TARGETS: os}}}",
    ),
    "function called while composing": (
        "dataset.find_cases._target_",
        "dataset: {find_cases: {_target_: medexp.preparation.mock_brats.write_mock, _partial_: false}}",
    ),
}


@pytest.mark.parametrize("place", _PLACES)
def test_a_target_is_found_wherever_it_hides(place, evil_dir, canary):
    with pytest.raises(TargetNotAllowedError) as raised:
        checked([f"experiment=place{list(_PLACES).index(place)}"], config_dirs=[evil_dir])
    assert f"{_PLACES[place][0]}:" in str(raised.value)
    assert not canary.exists()


def test_a_target_chosen_by_a_defaults_list_is_refused(config_dir, canary):
    folder = config_dir(
        model__evil=f"_target_: os.system\ncommand: touch {canary}\n",
        experiment__evil="# @package _global_\ndefaults:\n  - override /model: evil\n",
    )
    with pytest.raises(TargetNotAllowedError, match=r"model\._target_"):
        checked(["experiment=evil"], config_dirs=[folder])
    assert not canary.exists()


def test_own_local_settings_are_no_way_around(config_dir):
    folder = config_dir(local="hydra: {callbacks: {evil: {_target_: os.system}}}\n")
    with pytest.raises(TargetNotAllowedError, match=r"hydra\.callbacks\.evil\._target_"):
        checked([], config_dirs=[folder])


@pytest.mark.parametrize(
    "overrides",
    [
        ["+hydra.callbacks.evil._target_=os.system"],
        ["hydra.callbacks.evil._target_=os.system"],
        ["++hydra.callbacks={evil:{_target_:os.system}}"],
        ["model.network._target_=torch.load"],
        ["model.network={_target_:torch.load}"],
        ["hydra.launcher._target_=os.system"],
        ["hydra/job_logging=default"],
    ],
)
def test_the_command_line_is_no_way_around(overrides):
    with pytest.raises(TargetNotAllowedError, match="_target_|class"):
        checked(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["fold=0,1", "model.network._target_=monai.networks.nets.SegResNet,torch.load"],
        ["name=torch.optim.SGD,torch.load", "model.curriculum.stage_1.optimizer._target_=${name}"],
        ["+hydra.sweeper.params={model.network._target_:'torch.load,torch.save'}"],
    ],
)
def test_every_job_of_a_sweep_is_checked(overrides):
    with pytest.raises(TargetNotAllowedError, match=r"_target_.*torch\.load"):
        checked(overrides, multirun=True)


def test_a_command_of_the_cluster_launcher_is_refused(package, monkeypatch, tmp_path, config_dir):
    home = tmp_path / "site" / "hydra_plugins" / "hydra_submitit_launcher"
    home.mkdir(parents=True)
    (home / "submitit_launcher.py").write_text("class SlurmLauncher:\n    def __init__(self, setup=None): ...\n")
    monkeypatch.syspath_prepend(str(home.parents[1]))
    import hydra_plugins

    monkeypatch.setattr(hydra_plugins, "__path__", [*hydra_plugins.__path__, str(home.parent)])
    monkeypatch.setattr(hydra_plugins.__spec__, "submodule_search_locations", list(hydra_plugins.__path__))
    target = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    folder = config_dir(hydra__launcher__cluster=f"_target_: {target}\nsetup: [touch canary]\n")
    with pytest.raises(TargetNotAllowedError, match=r"hydra\.launcher\.setup: runs"):
        checked(["hydra/launcher=cluster"], config_dirs=[folder])


def test_an_address_to_fetch_weights_from_is_refused():
    with pytest.raises(TargetNotAllowedError, match=r"model\.network\.pretrained_url: runs or fetches"):
        checked(["++model.network={_target_:monai.networks.nets.HoVerNet,pretrained_url:x}"])


def test_the_command_exits_non_zero_and_names_key_and_remedy(config_dir, canary):
    folder = config_dir(experiment__evil=_EVIL.format(target="os.system", canary=canary))
    command = [sys.executable, "-m", "medexp.run", "experiment=evil", "--config-dir", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "callbacks.evil._target_" in ended.stderr
    assert "MEDEXP_ALLOW_TARGETS" in ended.stderr
    assert not canary.exists()


def test_an_admitted_package_composes(package, config_dir, monkeypatch):
    package(parts="class Gentle:\n    def __init__(self, strength): ...\n")
    content = "# @package _global_\ncallbacks: {own: {_target_: ownpackage.parts.Gentle, strength: 3}}\n"
    folder = config_dir(experiment__own=content)
    with pytest.raises(TargetNotAllowedError):
        compose(["experiment=own"], config_dirs=[folder])
    monkeypatch.setenv("MEDEXP_ALLOW_TARGETS", "ownpackage")
    assert compose(["experiment=own"], config_dirs=[folder]).callbacks.own.strength == 3


def test_configuration_cannot_admit_a_package(config_dir):
    content = "# @package _global_\nallow_targets: [os]\nMEDEXP_ALLOW_TARGETS: os\n"
    with pytest.raises(ConfigurationError, match="allow_targets: no such key"):
        checked(["experiment=own"], config_dirs=[config_dir(experiment__own=content)])


def test_nothing_heavy_is_imported_by_checking():
    heavy = {"torch", "lightning", "monai", "mlflow", "matplotlib", "numpy", "segmentation_models_pytorch"}
    code = (
        "import sys; from medexp.composition import checked; checked(['stage=1'])\n"
        f"found = {heavy!r} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path("/"))
