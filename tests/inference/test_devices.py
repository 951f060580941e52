"""Device and precision in the trainer's words."""

import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.inference.devices import autocast_for, choose_device


def test_the_processor_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_the_best_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu", "tpu", "typo"])
def test_absent_accelerator_is_refused_with_those_that_are_there(accelerator):
    with pytest.raises(ConfigurationError, match=rf"hardware\.accelerator.*cpu.*'{accelerator}'"):
        choose_device(accelerator)


def test_mixed_precision_computes_in_bfloat16():
    with autocast_for("bf16-mixed", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_full_precision_changes_nothing():
    with autocast_for("32-true", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_unknown_precision_is_refused():
    with pytest.raises(ConfigurationError, match=r"hardware\.precision.*'64-true'"):
        autocast_for("64-true", torch.device("cpu"))
