import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from medexp.composition import checked, compose, conf_dir, resolved_stage
from medexp.errors import ConfigurationError, UnknownOptionError


def _choices(overrides, **options):
    return checked(overrides, **options).config.hydra.runtime.choices


@pytest.mark.parametrize("stage", ["1", "2", "'2'", "prepare"])
def test_the_command_of_the_readme_works_through_compose(stage):
    config = compose(["dataset=brats", "model=monai_ft", f"stage={stage}"], with_hydra=True)
    assert config.hydra.runtime.choices.stage == stage.strip("'")


def test_compose_leaves_hydras_node_out_unless_asked():
    assert "hydra" not in compose()
    assert "hydra" in compose(with_hydra=True)


def test_compose_equals_hydras_own_composition():
    config = compose(["stage=1", "fold=3"])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert hydra_compose("config", ["stage='1'", "fold=3"]) == config


def test_it_works_inside_an_initialized_hydra_and_leaves_it_alone():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert compose(["stage=2"]).stage.curriculum == "stage_2"
        assert GlobalHydra.instance().hydra is before


def test_it_works_from_another_folder(tmp_path):
    code = "from medexp.composition import compose; assert compose(['stage=2']).stage.curriculum == 'stage_2'"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_output_goes_to_the_checkout_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDEXP_OUTPUT_DIR", raising=False)
    assert compose().output_dir == str(conf_dir().parent / "multirun")
    monkeypatch.setenv("MEDEXP_OUTPUT_DIR", str(tmp_path))
    assert compose().output_dir == str(tmp_path)


def test_a_changed_result_does_not_reach_the_next_caller():
    first = compose(["fold=4"])
    first.fold = 9
    assert compose(["fold=4"]).fold == 4


def test_own_folders_add_options_and_a_changed_file_is_read_again(config_dir):
    folder = config_dir(experiment__own="# @package _global_\nfold: 3\n")
    assert compose(["experiment=own"], config_dirs=[folder]).fold == 3
    path = folder / "experiment" / "own.yaml"
    path.write_text("# @package _global_\nfold: 4\n")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert compose(["experiment=own"], config_dirs=[str(folder)]).fold == 4


def test_own_local_settings_are_taken(config_dir):
    assert compose(config_dirs=[config_dir(local="data_dir: /archive\n")]).data_dir == "/archive"


def test_a_missing_own_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="--config-dir .*nowhere"):
        compose(config_dirs=[tmp_path / "nowhere"])


def test_a_model_without_the_stage_refuses_by_name():
    with pytest.raises(UnknownOptionError, match="model unet3d has no stage 2; its curriculum: stage_1"):
        checked(["model=unet3d", "stage=2"])


def test_other_stages_do_not_need_the_trainer_to_resolve():
    assert resolved_stage(checked(["model=unet3d", "stage=report"]).config)["call"]["_partial_"] is True


def test_an_interpolation_into_nothing_is_named_with_the_nearest_key():
    with pytest.raises(ConfigurationError, match=r"dataset\.roots.*\$\{mock\.rot\}.*did you mean mock\.root"):
        checked(["stage=prepare", "dataset.roots=['${mock.rot}']"])


def test_a_circle_of_interpolations_is_an_error():
    with pytest.raises(ConfigurationError, match=r"^mock|^stage\.call\.root.*(?i:circle|recursive)"):
        checked(["stage=mock", "mock.root=${prepare.store}", "prepare.store=${mock.root}"])


def test_a_value_that_must_be_given_is_named():
    with pytest.raises(ConfigurationError, match=r"mock\.root: expected a value, got none"):
        checked(["stage=mock", "mock.root=???"])


def test_an_unreadable_override_is_named():
    with pytest.raises(ConfigurationError, match=r"'fold=\{': expected key=value"):
        checked(["fold={"])


def test_no_option_is_an_error():
    with pytest.raises(ConfigurationError, match="dataset=null: expected one of brats"):
        checked(["dataset=null"])


def test_resolved_stage_is_plain_and_whole():
    node = resolved_stage(compose(["stage=1", "dataset.num_folds=3"]))

    def containers(value):
        yield value
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from containers(inner)

    assert node["call"]["datamodule"]["num_folds"] == 3
    found = list(containers(node))
    assert not any(isinstance(value, DictConfig) for value in found)
    assert not any(isinstance(value, str) and "${" in value for value in found)


def test_a_sweep_lists_every_job_once():
    composed = checked(["stage=1,2", "fold=0,1", "seed=3"], multirun=True)
    assert composed.jobs == (
        ("stage='1'", "fold=0", "seed=3"),
        ("stage='1'", "fold=1", "seed=3"),
        ("stage='2'", "fold=0", "seed=3"),
        ("stage='2'", "fold=1", "seed=3"),
    )


def test_an_experiment_may_ask_for_a_sweep_and_the_command_line_wins():
    assert [job[0] for job in checked(["experiment=demo"]).jobs][:3] == ["stage=mock", "stage=prepare", "stage='1'"]
    assert checked(["experiment=demo", "stage=2"]).jobs == ()
    assert len(checked(["experiment=demo", "stage=1,2"]).jobs) == 2


@pytest.mark.parametrize("values", ["choice(0,1)", "range(0,2)", "0,1"])
def test_every_kind_of_sweep_is_understood(values):
    assert [job[0] for job in checked([f"fold={values}"], multirun=True).jobs] == ["fold=0", "fold=1"]


def test_a_glob_over_stages_finds_numbers_too():
    jobs = checked(["stage=glob(*,exclude=[compare,view])", "model=monai_ft"], multirun=True).jobs
    assert len(jobs) >= 7


def test_several_values_without_multirun_are_explained():
    with pytest.raises(ConfigurationError, match="add -m"):
        checked(["fold=0,1"])
    with pytest.raises(ConfigurationError, match="add -m"):
        compose(["fold=0,1"])


@pytest.mark.parametrize(
    ("overrides", "job"),
    [
        (["model=monai_ft,unet3d", "stage=1,2"], r"in the job model=unet3d stage='2'"),
        (["fold=0,abc", "seed=1"], "fold=abc"),
        (["dataset=brats,hippocampus", "+dataset.regions.own=[1],{_x_:1}"], "dataset=brats"),
    ],
)
def test_a_mistake_in_one_job_is_found_and_the_job_named(overrides, job):
    with pytest.raises(ConfigurationError, match=job):
        checked(overrides, multirun=True)


def test_an_unknown_option_in_a_sweep_is_found():
    with pytest.raises(UnknownOptionError, match="did you mean hippocampus"):
        checked(["dataset=brats,hippocampos"], multirun=True)


def test_the_module_imports_nothing_of_hydra_until_it_composes():
    code = "import sys, medexp.composition; medexp.composition.help_text(); assert 'hydra' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path("/"))
