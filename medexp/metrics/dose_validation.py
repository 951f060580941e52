"""Errors of whole predicted doses, collected over the cases of a validation."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor


class DoseValidation:
    """Mean absolute errors in Gy: over the voxels where dose may be, and inside each target.

    `mae_gy` is the mean over cases; `mae_gy/<target>` over those that have the target, `cases/<target>` their number.
    """

    def __init__(self) -> None:
        self._errors: defaultdict[str, list[float]] = defaultdict(list)

    def clear(self) -> None:
        """Forget all cases."""
        self._errors.clear()

    def add(
        self,
        predicted_gy: Float[Tensor, "i j k"],
        reference_gy: Float[Tensor, "i j k"],
        possible: Bool[Tensor, "i j k"],
        targets: Mapping[str, Bool[Tensor, "i j k"]],
    ) -> None:
        """Count one case.

        Args:
            predicted_gy: The whole volume.
            reference_gy: The planned dose.
            possible: Where dose may be; if that is nowhere, every voxel counts.
            targets: The masks of the targets; one that is empty is not counted.
        """
        error = (predicted_gy - reference_gy).abs()
        inside = error[possible] if possible.any() else error
        self._errors["mae_gy"].append(float(inside.double().mean()))
        for name, mask in targets.items():
            if mask.any():
                self._errors[f"mae_gy/{name}"].append(float(error[mask].double().mean()))

    def summary(self) -> dict[str, float]:
        """Return the means over cases, and the number of cases behind each target's."""
        means = {name: float(np.mean(values)) for name, values in self._errors.items()}
        counts = {
            name.replace("mae_gy", "cases"): float(len(values))
            for name, values in self._errors.items()
            if name != "mae_gy"
        }
        return {**means, **counts}
