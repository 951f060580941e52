"""What a validation says of whole predicted doses, and that its gamma is that of the voxels it looks at."""

import numpy as np
import pytest
import torch

from medexp.metrics.dose_validation import DoseValidation
from medexp.metrics.gamma import GammaCriteria, gamma_map, summarize_gamma

SHAPE, SPACING = (20, 18, 16), torch.tensor([2.5, 2.5, 3.0])
EVERYWHERE = torch.ones(SHAPE, dtype=torch.bool)


def hill(height_gy: float) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in SHAPE], indexing="ij")
    return height_gy * (1 - 0.5 * torch.stack(axes).square().sum(0)).clamp(min=0)


def test_errors_are_means_over_cases_and_a_missing_target_is_counted_out():
    scores, inside = DoseValidation(), EVERYWHERE.clone()
    inside[10:] = False
    for error_gy, mask in ((1.0, inside), (3.0, torch.zeros_like(inside))):
        scores.add(hill(60.0) + error_gy, hill(60.0), EVERYWHERE, {"PTV70": mask}, SPACING)
    summary = scores.summary()
    assert summary == pytest.approx({"mae_gy": 2.0, "mae_gy/PTV70": 1.0, "cases/PTV70": 1.0}, abs=1e-5)


def test_gamma_is_that_of_every_nth_voxel():
    reference, predicted = hill(60.0), hill(60.0) + torch.linspace(-16, 16, SHAPE[0])[:, None, None]
    criteria = GammaCriteria(dose_percent=3.0, distance_mm=3.0, cutoff_percent=10.0, local=False, max_gamma=2.0)
    gamma = gamma_map(reference.numpy(), predicted.clamp(min=0).numpy(), SPACING.tolist(), criteria)
    some = np.full(SHAPE, np.nan, dtype=np.float32)
    some[::2, ::2, ::2] = gamma[::2, ::2, ::2]
    scores = DoseValidation(gamma_proxy_subsample=2)
    scores.add(predicted, reference, EVERYWHERE, {}, SPACING)
    found = scores.summary()["gamma_proxy_percent"]
    assert found == pytest.approx(summarize_gamma(some).pass_rate_percent)
    assert 20 < found < 80
    assert found != pytest.approx(summarize_gamma(gamma).pass_rate_percent, abs=1e-6)


def test_gamma_of_no_dose_is_no_number():
    scores = DoseValidation(gamma_proxy_subsample=4)
    scores.add(hill(60.0), torch.zeros(SHAPE), EVERYWHERE, {}, SPACING)
    assert "gamma_proxy_percent" not in scores.summary()


def test_a_diverged_model_has_no_gamma_either():
    scores, predicted = DoseValidation(gamma_proxy_subsample=4), hill(60.0)
    predicted[3, 3, 3] = torch.nan
    scores.add(predicted, hill(60.0), EVERYWHERE, {}, SPACING)
    assert np.isnan([scores.summary()["mae_gy"], scores.summary()["gamma_proxy_percent"]]).all()


def test_nothing_is_kept_from_one_validation_to_the_next():
    scores = DoseValidation(gamma_proxy_subsample=4)
    scores.add(hill(60.0), hill(60.0), EVERYWHERE, {}, SPACING)
    scores.clear()
    assert scores.summary() == {}
