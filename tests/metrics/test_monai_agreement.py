"""Against MONAI where its definitions agree. The only module here that waits for MONAI to be imported."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from medexp.metrics.overlap import dice
from medexp.metrics.surface import hausdorff_distance_95, normalized_surface_dice
from medexp.metrics.surface_elements import element_sizes

# MONAI 1.6 passes its own deprecated argument to its own function.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.9), (5.0, 0.5, 1.0), (1.0, 1.0), (0.7, 1.3)], ids=str
)
def test_the_table_of_surface_elements_is_monais(spacing):
    table, _ = get_code_to_measure_table(spacing)
    assert np.allclose(element_sizes(spacing), np.asarray(table), rtol=1e-6, atol=0)


def masks(seed, shape):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(2)]
    return [field > 0.8 * field.std() for field in fields]


def batched(mask):
    return torch.as_tensor(mask[None, None].astype(np.float32))


@pytest.mark.parametrize("shape", [(12, 13, 14), (20, 21)], ids=["volume", "image"])
@pytest.mark.parametrize("seed", range(4))
def test_surface_dice_on_subvoxels_is_monais(seed, shape):
    prediction, reference = masks(seed, shape)
    spacing = (0.8, 1.0, 1.7)[: len(shape)]
    theirs = compute_surface_dice(
        batched(prediction), batched(reference), [1.0], include_background=True, spacing=spacing, use_subvoxels=True
    )
    assert normalized_surface_dice(prediction, reference, spacing, 1.0) == pytest.approx(float(theirs), abs=1e-5)
    assert dice(prediction, reference) == pytest.approx(
        float(compute_dice(batched(prediction), batched(reference), include_background=True))
    )


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)], ids=str)
def test_hd95_of_a_shifted_sheet_is_monais(shift, spacing):
    # MONAI counts voxels of the surface where medexp weighs its elements with their area; for a thin sheet that is
    # moved along its normal every element is as far as every voxel, and the definitions agree.
    prediction, reference = np.zeros((2, 12, 30, 30), dtype=bool)
    prediction[4], reference[4 + shift] = True, True
    theirs = compute_hausdorff_distance(
        batched(prediction), batched(reference), include_background=True, percentile=95, spacing=spacing
    )
    assert hausdorff_distance_95(prediction, reference, spacing) == pytest.approx(float(theirs), abs=1e-6)
