"""The number of threads of a job's arithmetic is set for the job, and only for it."""

import pytest
import torch

from medexp.composition import compose
from medexp.errors import ConfigurationError
from medexp.stages.threads import arithmetic_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def failing_job(seen):
    with arithmetic_threads(2):
        seen.append(torch.get_num_threads())
        raise RuntimeError("inside")


def test_a_job_computes_with_its_own_number_and_gives_the_old_one_back():
    seen = []
    with pytest.raises(RuntimeError, match="inside"):
        failing_job(seen)
    assert (seen, torch.get_num_threads()) == ([2], 3)


def test_null_changes_nothing():
    with arithmetic_threads(None):
        assert torch.get_num_threads() == 3


def test_no_thread_is_refused_at_composition():
    with pytest.raises(ConfigurationError, match=r"hardware\.threads.*>= 1"):
        compose(["dataset=brats", "model=unet3d", "stage=1", "hardware.threads=0"])


@pytest.mark.parametrize("stage", ["1", "2", "predict"])
def test_the_key_reaches_every_stage_that_computes_with_torch(stage):
    config = compose(["dataset=brats", "model=monai_ft", f"stage={stage}", "hardware.threads=2"])
    assert config.stage.call.threads == 2
