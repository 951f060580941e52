"""The scores of one predicted dose, and the columns of a per-case table that they fill."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from medexp.metrics.clinical import CheckedLimits
from medexp.metrics.dose_errors import DoseErrors
from medexp.metrics.gamma import GammaSummary
from medexp.metrics.openkbp import PatientScores

REFERENCE, PREDICTION = "reference", "prediction"
WHOLE = "whole grid"
CURVE_STEP_GY = 0.5


@dataclass(frozen=True)
class DvhComparison:
    """One point of a structure's DVH on both sides."""

    structure: str
    metric: str
    reference: float
    prediction: float

    @property
    def difference(self) -> float:
        """Prediction minus reference."""
        return self.prediction - self.reference


@dataclass(frozen=True, eq=False)
class DvhCurves:
    """A structure's cumulative DVH on both sides, in percent, at 0, `CURVE_STEP_GY`, ... Gy."""

    reference: Float64[np.ndarray, " dose"]
    prediction: Float64[np.ndarray, " dose"]


@dataclass(frozen=True)
class DoseScores:
    """The scores of one case.

    Attributes:
        errors: By voxel.
        gamma: By criterion, then by region: `WHOLE`, or a target with its margin.
        dvh: Points of all structures that have a voxel.
        curves: By structure.
        unreliable: Structures with so few voxels that points of their DVH mean little.
        limits: By side; empty: no protocol was asked for.
        openkbp: None: not asked for, or not possible.
        warnings: What a person should know.
    """

    errors: DoseErrors
    gamma: Mapping[str, Mapping[str, GammaSummary]]
    dvh: tuple[DvhComparison, ...]
    curves: Mapping[str, DvhCurves]
    unreliable: tuple[str, ...]
    limits: Mapping[str, CheckedLimits] = field(default_factory=dict)
    openkbp: PatientScores | None = None
    warnings: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the scores by name, as they head the columns of a per-case table; None is undefined.

        Of a point of a DVH stand there: the prediction's, the reference's, and the absolute difference as `_error`.
        """
        row: dict[str, Any] = self.errors.row()
        for name, regions in self.gamma.items():
            for region, summary in regions.items():
                place = "" if region == WHOLE else f"/{region}"
                row[f"gamma_pass_rate_{name}{place}"] = summary.pass_rate_percent
                row[f"gamma_mean_{name}{place}"] = summary.mean
                row[f"gamma_voxels_{name}{place}"] = summary.num_voxels
        for point in self.dvh:
            if not point.metric.endswith("_cc"):  # these stand in the long table of DVH points
                row |= _point_columns(point)
        for side, checked in self.limits.items():
            row |= _limit_columns(side, checked)
        if self.openkbp is not None:
            row |= {
                "openkbp_dose_error_gy": self.openkbp.dose_error_gy,
                "openkbp_dvh_error_gy": self.openkbp.dvh_error_gy,
            }
        return row


def _point_columns(point: DvhComparison) -> dict[str, float]:
    stem, unit = point.metric.rsplit("_", 1)
    return {
        f"{point.metric}/{point.structure}": point.prediction,
        f"reference_{point.metric}/{point.structure}": point.reference,
        f"{stem}_error_{unit}/{point.structure}": abs(point.difference),
    }


def _limit_columns(side: str, checked: CheckedLimits) -> dict[str, Any]:
    summary = checked.to_json()["summary"]
    columns = {"limits_compliance_rate": checked.compliance_rate}
    columns |= {f"limits_{outcome}": summary[outcome] for outcome in ("passed", "violated", "missing")}
    return columns if side == PREDICTION else {f"reference_{name}": value for name, value in columns.items()}
