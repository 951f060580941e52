import pytest

from medexp.composition.flags import refuse_flags
from medexp.errors import ConfigurationError, UnknownOptionError


@pytest.mark.parametrize(
    "flag", ["--experimental-rerun", "--experimental-rerun=x.pickle", "--exp", "--experimental-r=x"]
)
def test_the_flag_that_unpickles_is_refused_abbreviated_too(flag):
    with pytest.raises(ConfigurationError, match="unpickles"):
        refuse_flags(["fold=1", flag])


@pytest.mark.parametrize("flag", ["--config-name", "-cn", "--config-n=x", "--config-path=/x", "-cp=/x", "--config"])
def test_another_configuration_is_refused(flag):
    with pytest.raises(ConfigurationError, match="experiment=<name>"):
        refuse_flags([flag, "x"])


def test_other_flags_pass():
    refuse_flags(["-m", "--cfg", "job", "--config-dir", "x", "-cd", "y", "--info", "--resolve", "stage=1"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--hlep"], "--hlep: no such flag; did you mean --help"),
        (["--multirunn", "stage=1"], "--multirunn: no such flag; did you mean --multirun"),
        (["--cfg", "jobb"], "--cfg: expected one of job, hydra, all, got 'jobb'; did you mean job"),
        (["--cfg=jobb"], "got 'jobb'; did you mean job"),
        (["-c", "stage=1"], "--cfg: expected one of job, hydra, all, got nothing"),
        (["--info", "default"], "did you mean defaults"),
        (["--res=1", "--in"], None),
        (["--h"], "--h: expected one flag, got the beginning of --hydra-help and --help"),
        (["-x"], "-x: no such flag"),
    ],
)
def test_a_flag_that_does_not_exist_has_its_nearest(argv, message):
    if message is None:
        refuse_flags(argv)
        return
    with pytest.raises((UnknownOptionError, ConfigurationError)) as error:
        refuse_flags(argv)
    assert message in str(error.value)
