"""Distances between the surfaces of two masks, in millimeters.

The definitions are those of the surface-distance package: a surface is made of elements at the corners between
voxels, each with its area (length in an image), and every statistic is weighted with it. The directed distances
are found once and serve the Hausdorff distance and the surface Dice at every tolerance.

Source:
    google-deepmind/surface-distance, `metrics.py` (Apache-2.0), re-implemented from its definitions; Nikolov et al.,
    "Deep learning to achieve clinically applicable segmentation of head and neck anatomy for radiotherapy",
    arXiv:1809.04430. Compared with MONAI's surface Dice in tests/metrics/test_monai_agreement.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medexp.metrics.grids import Spacing, bounding_box, hull, require_same_grid, spacing_on
from medexp.metrics.surface_points import SurfacePoints, corner_surface, voxel_surface


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance of every surface element to the other surface, with the area of the element.

    An empty mask has no elements; the distances of the other one are then infinite.
    """

    prediction_to_reference_mm: Float[np.ndarray, " prediction"]
    reference_to_prediction_mm: Float[np.ndarray, " reference"]
    prediction_areas: Float[np.ndarray, " prediction"]
    reference_areas: Float[np.ndarray, " reference"]


def surface_distances(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Spacing
) -> SurfaceDistances:
    """Find the distance of every surface element of each mask to the other mask's surface.

    Args:
        prediction: Predicted mask, two or three axes.
        reference: Reference mask on the same grid.
        spacing_mm: Voxel size along each axis.

    Raises:
        GridMismatchError: The masks have different shapes.
        CaseError: The voxel sizes do not fit.
    """
    require_same_grid(prediction, reference)
    spacing = spacing_on(reference, spacing_mm)
    box = hull(bounding_box(prediction), bounding_box(reference))
    origin = (0,) * reference.ndim
    return distances_between(
        corner_surface(prediction[box].astype(np.uint8), spacing, origin),
        corner_surface(reference[box].astype(np.uint8), spacing, origin),
    )


def distances_between(prediction: SurfacePoints, reference: SurfacePoints) -> SurfaceDistances:
    """Return the distances between two surfaces on one lattice."""
    return SurfaceDistances(
        prediction.distances_to(reference), reference.distances_to(prediction), prediction.sizes, reference.sizes
    )


def robust_hausdorff_mm(distances: SurfaceDistances, percent: float | int = 95) -> float:
    """Return the larger of the two directed percentiles, each weighted with area.

    Returns:
        The distance in mm; `nan` if both surfaces are empty, `inf` if exactly one is. (The package returns `inf`
        in both cases.)
    """
    directed = (
        _weighted_percentile(distances.prediction_to_reference_mm, distances.prediction_areas, percent),
        _weighted_percentile(distances.reference_to_prediction_mm, distances.reference_areas, percent),
    )
    if all(np.isnan(directed)):
        return float("nan")
    return float("inf") if any(np.isnan(directed)) else max(directed)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float | int) -> float:
    """Return the share of both surfaces within the tolerance of the other one (normalized surface Dice, NSD).

    Returns:
        A share in [0, 1]; 0 if exactly one surface is empty, `nan` if both are.
    """
    near = np.sum(distances.prediction_areas[distances.prediction_to_reference_mm <= tolerance_mm]) + np.sum(
        distances.reference_areas[distances.reference_to_prediction_mm <= tolerance_mm]
    )
    whole = np.sum(distances.prediction_areas) + np.sum(distances.reference_areas)
    return float(near / whole) if whole > 0 else float("nan")


def average_surface_distance_mm(distances: SurfaceDistances) -> float:
    """Return the mean of the two directed mean distances, each weighted with area.

    Returns:
        The distance in mm; `nan` if both surfaces are empty, `inf` if exactly one is.
    """
    if len(distances.prediction_areas) == 0 and len(distances.reference_areas) == 0:
        return float("nan")
    if len(distances.prediction_areas) == 0 or len(distances.reference_areas) == 0:
        return float("inf")
    forth = np.average(distances.prediction_to_reference_mm, weights=distances.prediction_areas)
    back = np.average(distances.reference_to_prediction_mm, weights=distances.reference_areas)
    return float(0.5 * (forth + back))


def hausdorff_distance_95(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Spacing
) -> float:
    """Return the 95th percentile Hausdorff distance of two masks; see `robust_hausdorff_mm` and `surface_distances`."""
    return robust_hausdorff_mm(surface_distances(prediction, reference, spacing_mm))


def normalized_surface_dice(
    prediction: Bool[np.ndarray, "..."],
    reference: Bool[np.ndarray, "..."],
    spacing_mm: Spacing,
    tolerance_mm: float | int,
) -> float:
    """Return the surface Dice of two masks at a tolerance; see `surface_dice` and `surface_distances`."""
    return surface_dice(surface_distances(prediction, reference, spacing_mm), tolerance_mm)


def pooled_hausdorff_distance_95(
    prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."], spacing_mm: Spacing
) -> float:
    """Return the 95th percentile of both directions' distances together, unweighted.

    A surface is the set of voxels with a background voxel among all their neighbors (26 in a volume).

    Returns:
        The distance in mm; `nan` if both masks are empty, `inf` if exactly one is.

    Raises:
        GridMismatchError: The masks have different shapes.

    Source:
        The lesion metric of the BraTS toolkit (chienlax/brats_challenge), re-implemented from its definition.
    """
    require_same_grid(prediction, reference)
    spacing = spacing_on(reference, spacing_mm)
    box = hull(bounding_box(prediction), bounding_box(reference))
    origin = (0,) * reference.ndim
    return pooled_hausdorff_mm(
        voxel_surface(prediction[box], spacing, origin, prediction.ndim),
        voxel_surface(reference[box], spacing, origin, reference.ndim),
    )


def pooled_hausdorff_mm(prediction: SurfacePoints, reference: SurfacePoints, percent: float | int = 95) -> float:
    """Return the percentile of both surfaces' distances together; `nan` if both are empty, `inf` if one is."""
    pooled = np.concatenate([prediction.distances_to(reference), reference.distances_to(prediction)])
    if len(pooled) == 0:
        return float("nan")
    return float(np.percentile(pooled, percent)) if np.isfinite(pooled).all() else float("inf")


def _weighted_percentile(
    distances_mm: Float[np.ndarray, " point"], areas: Float[np.ndarray, " point"], percent: float | int
) -> float:
    """Return the smallest distance that covers `percent` of the area; `nan` without points.

    Sorted by (distance, area) and divided after the cumulative sum, as the package does: where the share meets the
    percentage exactly, the rounding decides which distance is returned.
    """
    if len(distances_mm) == 0:
        return float("nan")
    order = np.lexsort((areas, distances_mm))
    covered = np.cumsum(areas[order]) / np.sum(areas[order])
    index = int(np.searchsorted(covered, percent / 100.0))
    return float(distances_mm[order][min(index, len(order) - 1)])
