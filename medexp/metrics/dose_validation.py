"""Errors of whole predicted doses, collected over the cases of a validation."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from medexp.metrics.gamma import GammaCriteria, gamma_pass_rate
from medexp.types import Count

_PROXY = GammaCriteria(dose_percent=3.0, distance_mm=3.0, cutoff_percent=10.0, local=False, max_gamma=2.0)


class DoseValidation:
    """Mean absolute errors in Gy: over the voxels where dose may be, and inside each target.

    `mae_gy` is the mean over cases; `mae_gy/<target>` over those that have the target, `cases/<target>` their number.
    `gamma_proxy_percent` is the share of a few voxels with a global 3 %/3 mm gamma up to 1, to watch a training by:
    what counts is gamma at every voxel, from `stage=evaluate`.
    """

    def __init__(self, *, gamma_proxy_subsample: Count | None = None) -> None:
        """Start without cases.

        Args:
            gamma_proxy_subsample: Judge every n-th voxel along each axis; None: no gamma.
        """
        self.gamma_proxy_subsample = gamma_proxy_subsample
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def clear(self) -> None:
        """Forget all cases."""
        self._values.clear()

    def add(
        self,
        predicted_gy: Float[Tensor, "i j k"],
        reference_gy: Float[Tensor, "i j k"],
        possible: Bool[Tensor, "i j k"],
        targets: Mapping[str, Bool[Tensor, "i j k"]],
        spacing_mm: Float[Tensor, "3"],
    ) -> None:
        """Count one case.

        Args:
            predicted_gy: The whole volume.
            reference_gy: The planned dose.
            possible: Where dose may be; if that is nowhere, every voxel counts.
            targets: The masks of the targets; one that is empty is not counted.
            spacing_mm: Voxel size along i, j, k.
        """
        error = (predicted_gy - reference_gy).abs()
        inside = error[possible] if possible.any() else error
        self._values["mae_gy"].append(float(inside.double().mean()))
        for name, mask in targets.items():
            if mask.any():
                self._values[f"mae_gy/{name}"].append(float(error[mask].double().mean()))
        self._add_gamma(predicted_gy, reference_gy, spacing_mm)

    def summary(self) -> dict[str, float]:
        """Return the means over cases, and the number of cases behind each target's."""
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        counts = {
            name.replace("mae_gy/", "cases/"): float(len(values))
            for name, values in self._values.items()
            if name.startswith("mae_gy/")
        }
        return {**means, **counts}

    def _add_gamma(
        self, predicted_gy: Float[Tensor, "i j k"], reference_gy: Float[Tensor, "i j k"], spacing_mm: Float[Tensor, "3"]
    ) -> None:
        if self.gamma_proxy_subsample is None:
            return
        reference, predicted = (dose.float().cpu().numpy() for dose in (reference_gy, predicted_gy.clamp(min=0.0)))
        if not np.isfinite(predicted).all():  # a training that diverged goes on to say so by its scores
            self._values["gamma_proxy_percent"].append(float("nan"))
            return
        found = gamma_pass_rate(reference, predicted, spacing_mm.tolist(), _PROXY, subsample=self.gamma_proxy_subsample)
        if found.pass_rate_percent is not None:
            self._values["gamma_proxy_percent"].append(found.pass_rate_percent)
