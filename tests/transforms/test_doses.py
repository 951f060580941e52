import numpy as np
import pytest
import torch

from medexp.transforms import doses
from medexp.transforms.doses import add_ct_noise, normalize_ct


@pytest.mark.parametrize(
    ("hounsfield", "normalized"),
    [(-1024, 0.25), (-1000, 0.25), (-500, 0.375), (0, 0.5), (1000, 0.75), (3000, 1.25), (30_000, 1.25)],
)
def test_hounsfield_units_are_normalized_as_in_the_table(hounsfield, normalized):
    out = torch.empty(2)
    normalize_ct(torch.tensor([hounsfield, hounsfield], dtype=torch.int16), out)
    assert out.tolist() == [normalized, normalized]


def test_noise_has_its_deviation_and_no_bias():
    ct = torch.full((40, 40, 40), 0.5)
    add_ct_noise(ct, deviation=0.02, seed=3)
    assert float(ct.std()) == pytest.approx(0.02, rel=0.02)
    assert float(ct.mean()) == pytest.approx(0.5, abs=3e-4)


def test_noise_stays_within_the_range_of_a_ct():
    ct = torch.full((20, 20, 20), doses.AIR)
    ct[10:] = doses.BRIGHTEST
    add_ct_noise(ct, deviation=0.1, seed=0)
    assert (float(ct.min()), float(ct.max())) == (doses.AIR, doses.BRIGHTEST)
    assert np.unique(ct.numpy()).size > 1000


def test_noise_is_a_function_of_its_seed():
    def noisy(seed: int) -> torch.Tensor:
        ct = torch.full((8, 8, 8), 0.5)
        add_ct_noise(ct, deviation=0.02, seed=seed)
        return ct

    assert torch.equal(noisy(5), noisy(5))
    assert not torch.equal(noisy(5), noisy(6))
