"""Everything that is computed of one predicted dose: errors, gamma, DVHs, the protocol's limits, OpenKBP's scores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from medexp.errors import CaseError, ConfigurationError
from medexp.geometry.distances import signed_distance_mm
from medexp.io.dose_case import DoseCase
from medexp.metrics.clinical import CheckedLimits, Protocol, ProtocolName, check_limits, protocol_of, regions_of
from medexp.metrics.dose_errors import dose_errors
from medexp.metrics.dose_scores import CURVE_STEP_GY, PREDICTION, REFERENCE, WHOLE, DoseScores, DvhComparison, DvhCurves
from medexp.metrics.dvh import NUM_SAMPLES, Dvh, dvh_of_mask, dvh_points
from medexp.metrics.gamma import GammaCriteria, GammaSummary, gamma_map, summarize_gamma
from medexp.metrics.openkbp import OARS, PatientScores, score_patient
from medexp.types import Amount, Count, Positive

Shares: TypeAlias = Mapping[str, Bool[np.ndarray, "i j k"] | UInt8[np.ndarray, "i j k"]]

_PERCENTS = (98.0, 95.0, 50.0, 5.0, 2.0)  # the p of D_p
TARGET_LEVELS_PERCENT = (95, 100)  # of a target's own prescription
_CRITERIA = re.compile(r"(?P<percent>\d+(?:\.\d+)?) ?%/(?P<mm>\d+(?:\.\d+)?) ?mm(?: (?P<kind>global|local))?")


@dataclass(frozen=True)
class DoseScoring:
    """What is computed of a predicted dose.

    Attributes:
        structures: Of the dataset, in order; None: it has no doses, and none of this is computed.
        targets: Prescribed dose of each target, in Gy.
        gamma: Criteria such as "3%/3mm" or "2%/2mm local"; the first are those of the printed table.
        gamma_cutoff_percent: Voxels of the reference below so much of its maximum are not judged.
        gamma_max: Where the search ends; a larger gamma counts as this.
        gamma_subsample: Judge every n-th voxel along each axis; only 1 gives a number to publish.
        gamma_method: "exact" is medexp's own; "pymedphys" the reference implementation, which is far slower.
        ptv_margin_mm: Gamma of a target counts the voxels up to so far around it.
        volume_doses_gy: The x of V_x, in percent and cc of every structure.
        limits: The protocol whose limits are checked, where the dataset has one of its organs; None: none are.
        openkbp: Compute OpenKBP's scores where one of its organs, and where dose is possible, are known.
        goal_mae_gy: The report says whether the mean error is below.
        goal_gamma_percent: The report says whether the mean pass rate of the first criteria reaches it.

    Raises:
        ConfigurationError: A criterion cannot be read, or stands there twice.
    """

    structures: Sequence[str] | None
    targets: Mapping[str, Positive]
    gamma: Sequence[str]
    gamma_cutoff_percent: Amount
    gamma_max: Positive
    gamma_subsample: Count
    gamma_method: Literal["exact", "pymedphys"]
    ptv_margin_mm: Amount
    volume_doses_gy: Sequence[Positive]
    limits: ProtocolName | None
    openkbp: bool
    goal_mae_gy: Amount
    goal_gamma_percent: Amount

    def __post_init__(self) -> None:
        if len(self.criteria) < len(self.gamma):
            raise ConfigurationError(f"evaluate.doses.gamma: expected each criterion once, got {list(self.gamma)}")

    @cached_property
    def criteria(self) -> dict[str, GammaCriteria]:
        """The criteria of gamma by the name that heads their columns, such as `global_3mm3pct`."""
        return dict(self._criterion(text) for text in self.gamma)

    @property
    def protocol(self) -> Protocol | None:
        """The protocol whose limits are checked."""
        if self.limits is None:
            return None
        protocol = protocol_of(self.limits)
        return protocol if set(protocol.organs) & set(self.structures or ()) else None

    @property
    def texts(self) -> dict[str, str]:
        """The criteria as they are written, by the names that head their columns."""
        return {name: criteria.label for name, criteria in self.criteria.items()}

    def _criterion(self, text: str) -> tuple[str, GammaCriteria]:
        match = _CRITERIA.fullmatch(text.strip())
        if match is None:
            message = f"evaluate.doses.gamma: expected criteria such as 3%/3mm or 2%/2mm local, got {text!r}"
            raise ConfigurationError(message)
        percent, distance_mm, local = float(match["percent"]), float(match["mm"]), match["kind"] == "local"
        criteria = GammaCriteria(
            dose_percent=percent,
            distance_mm=distance_mm,
            cutoff_percent=self.gamma_cutoff_percent,
            local=local,
            max_gamma=self.gamma_max,
        )
        return f"{'local' if local else 'global'}_{distance_mm:g}mm{percent:g}pct", criteria


def score_dose(reference: DoseCase, prediction_gy: Float32[np.ndarray, "..."], scoring: DoseScoring) -> DoseScores:
    """Compare a predicted dose with the one that was delivered.

    Args:
        reference: The case; its dose, structures and grid.
        prediction_gy: On the same grid. It is scored as it is, nothing is masked or clipped; only for gamma, which is
            not defined for it, a negative dose counts as 0.
        scoring: What is computed.

    Raises:
        CaseError: A dose is missing or no dose.
        GridMismatchError: The doses stand on different grids.
    """
    dose_gy = reference.dose_gy
    if dose_gy is None:
        raise CaseError(f"{reference.name}: expected a reference with a dose, got none; evaluate planned cases only")
    errors = dose_errors(
        dose_gy,
        prediction_gy,
        masks=reference.masks,
        prescription_gy=reference.prescription_gy,
        possible_dose=reference.possible_dose,
    )
    doses = {REFERENCE: dose_gy, PREDICTION: prediction_gy}
    shares: Shares = {name: reference.coverage.get(name, mask) for name, mask in reference.masks.items()}
    dvhs = {side: _dvhs(dose, shares, reference.spacing_mm) for side, dose in doses.items()}
    return DoseScores(
        errors=errors,
        gamma=_gamma(reference, dose_gy, prediction_gy, scoring),
        dvh=_points(dvhs, scoring),
        curves=_curves(dvhs),
        unreliable=tuple(name for name, dvh in dvhs[REFERENCE].items() if not dvh.is_reliable),
        limits=_limits(doses, dvhs, shares, reference.spacing_mm, scoring),
        openkbp=_openkbp(reference, dose_gy, prediction_gy, scoring),
        warnings=(*reference.warnings, *errors.oddities.warnings(reference.prescription_gy)),
    )


def _dvhs(dose_gy: Float32[np.ndarray, "i j k"], shares: Shares, spacing: tuple[float, float, float]) -> dict[str, Dvh]:
    found = {
        # Where it is known how much of a voxel lies inside, parts of voxels are nearer to the truth than whole ones.
        name: dvh_of_mask(dose_gy, share, spacing, num_samples=NUM_SAMPLES if share.dtype == np.uint8 else None)
        for name, share in shares.items()
    }
    return {name: dvh for name, dvh in found.items() if dvh is not None}


def _points(dvhs: Mapping[str, Mapping[str, Dvh]], scoring: DoseScoring) -> tuple[DvhComparison, ...]:
    compared: list[DvhComparison] = []
    for structure in dvhs[REFERENCE]:
        sides = {side: _points_of(dvhs[side][structure], structure, scoring) for side in dvhs}
        compared += [
            DvhComparison(structure, metric, value, sides[PREDICTION][metric])
            for metric, value in sides[REFERENCE].items()
        ]
    return tuple(compared)


def _points_of(dvh: Dvh, structure: str, scoring: DoseScoring) -> dict[str, float]:
    points = dict(dvh_points(dvh, percents=_PERCENTS, doses_gy=[float(dose) for dose in scoring.volume_doses_gy]))
    prescribed = scoring.targets.get(structure)
    for level in TARGET_LEVELS_PERCENT if prescribed is not None else ():
        points[f"v{level}rx_percent"] = dvh.volume_percent_at_dose(float(prescribed or 0) * level / 100)
    return points


def _curves(dvhs: Mapping[str, Mapping[str, Dvh]]) -> dict[str, DvhCurves]:
    curves = {}
    for structure, reference in dvhs[REFERENCE].items():
        prediction = dvhs[PREDICTION][structure]
        highest = max(reference.maximum_gy, prediction.maximum_gy, 0.0)
        doses = np.arange(int(highest / CURVE_STEP_GY) + 2) * CURVE_STEP_GY
        curves[structure] = DvhCurves(reference.curve(doses), prediction.curve(doses))
    return curves


def _gamma(
    reference: DoseCase,
    dose_gy: Float32[np.ndarray, "i j k"],
    prediction_gy: Float32[np.ndarray, "i j k"],
    scoring: DoseScoring,
) -> dict[str, dict[str, GammaSummary]]:
    """Judge the whole grid once per criterion; a target's gamma is what lies near it."""
    if not scoring.criteria:
        return {}
    near = {
        name: _grown(mask, reference.spacing_mm, scoring.ptv_margin_mm)
        for name, mask in reference.masks.items()
        if name in scoring.targets
    }
    evaluated_gy = np.maximum(prediction_gy, np.float32(0.0))
    found = {}
    for name, criteria in scoring.criteria.items():
        gamma = gamma_map(
            dose_gy,
            evaluated_gy,
            reference.spacing_mm,
            criteria,
            subsample=scoring.gamma_subsample,
            method=scoring.gamma_method,
        )
        regions = {
            target: summarize_gamma(np.where(region, gamma, np.float32(np.nan))) for target, region in near.items()
        }
        found[name] = {WHOLE: summarize_gamma(gamma), **regions}
    return found


def _grown(
    mask: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float], margin_mm: float
) -> Bool[np.ndarray, "i j k"]:
    if margin_mm == 0:
        return mask
    grown: Bool[np.ndarray, "i j k"] = signed_distance_mm(mask, spacing, clip_mm=2 * margin_mm) <= margin_mm
    return grown


def _limits(
    doses: Mapping[str, Float32[np.ndarray, "i j k"]],
    dvhs: Mapping[str, Mapping[str, Dvh]],
    shares: Shares,
    spacing: tuple[float, float, float],
    scoring: DoseScoring,
) -> dict[str, CheckedLimits]:
    protocol = scoring.protocol
    if protocol is None:
        return {}
    regions = regions_of(shares, protocol)
    return {
        side: check_limits({**dvhs[side], **_dvhs(dose, regions, spacing)}, protocol) for side, dose in doses.items()
    }


def _openkbp(
    reference: DoseCase,
    dose_gy: Float32[np.ndarray, "i j k"],
    prediction_gy: Float32[np.ndarray, "i j k"],
    scoring: DoseScoring,
) -> PatientScores | None:
    possible = reference.possible_dose
    if not scoring.openkbp or possible is None or not set(OARS) & set(reference.masks):
        return None
    return score_patient(dose_gy, prediction_gy, possible, reference.masks, reference.spacing_mm)
