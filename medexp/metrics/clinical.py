"""Clinical limits of a protocol: which are kept, violated, or cannot be judged; and the vector that a network is told.

Source:
    The prostate protocol with a simultaneous integrated boost, 70/56/50.4 Gy in 28 fractions: its limits are rules of
    the clinic that the data come from, written down here as data. That a target's maximum is judged without the
    target of the next higher dose inside it is our reading: there the higher dose is prescribed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from medexp.errors import UnknownOptionError
from medexp.metrics.dvh import Dvh

ProtocolName: TypeAlias = Literal["prostate_sib"]

PTV70_GY, PTV56_GY, PTV50_GY = 70.0, 56.0, 50.4
_HOTTEST = 1.07  # of a target's own prescription
_COVERED_PERCENT = 95.0
_ROUNDING = 1e-6  # of a bound: 74.9 Gy is 74.9000015 in single precision
_BOWEL_CC = 500.0  # the vector gives a volume of bowel as a fraction of this


class Outcome(StrEnum):
    """What became of a limit."""

    PASSED = "passed"
    VIOLATED = "violated"
    MISSING = "missing"


@dataclass(frozen=True)
class Limit:
    """One limit of one structure.

    Attributes:
        kind: `v_percent` and `v_cc`: the volume that receives at least `dose_gy`; `dmax`: the highest dose in a voxel.
        bound: In percent, cc or Gy.
        dose_gy: Of a volume; None of a maximum.
        is_minimum: The value must be at least the bound, not at most.
        without: Structures that are taken out of this one first.
    """

    kind: Literal["v_percent", "v_cc", "dmax"]
    bound: float
    dose_gy: float | None = None
    is_minimum: bool = False
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The metric, as it heads columns: `v60gy_percent`, `v45gy_cc`, `dmax_gy`."""
        return "dmax_gy" if self.dose_gy is None else f"v{self.dose_gy:g}gy_{self.kind.removeprefix('v_')}"

    def region(self, structure: str) -> str:
        """Return where it is measured, as a key of `regions_of`."""
        return " - ".join((structure, *self.without))

    def value(self, dvh: Dvh) -> float:
        """Return the value that is compared with the bound."""
        if self.dose_gy is None:
            return dvh.maximum_gy
        if self.kind == "v_percent":
            return dvh.volume_percent_at_dose(self.dose_gy)
        return dvh.volume_cc_at_dose(self.dose_gy)


@dataclass(frozen=True)
class Protocol:
    """The limits of every structure, and the structures that a plan of this protocol need not have."""

    name: ProtocolName
    limits: Mapping[str, tuple[Limit, ...]]
    optional: tuple[str, ...]

    @property
    def organs(self) -> tuple[str, ...]:
        """The structures that are to be spared, not treated."""
        return tuple(name for name, limits in self.limits.items() if not any(one.is_minimum for one in limits))


def _at_most(dose_gy: float, percent: float) -> Limit:
    return Limit("v_percent", percent, dose_gy)


def _maximum(dose_gy: float, *without: str) -> Limit:
    return Limit("dmax", dose_gy, without=without)


def _target(prescription_gy: float, *without: str) -> tuple[Limit, ...]:
    covered = Limit("v_percent", _COVERED_PERCENT, prescription_gy, is_minimum=True)
    return (covered, _maximum(round(_HOTTEST * prescription_gy, 2), *without))


PROTOCOLS: Mapping[str, Protocol] = {
    "prostate_sib": Protocol(
        name="prostate_sib",
        limits={
            "PTV70": _target(PTV70_GY),
            "PTV56": _target(PTV56_GY, "PTV70"),
            "PTV50.4": _target(PTV50_GY, "PTV70", "PTV56"),
            "Rectum": (_at_most(70.0, 15.0), _at_most(60.0, 25.0), _at_most(50.0, 50.0), _maximum(75.0)),
            "Bladder": (_at_most(70.0, 25.0), _at_most(60.0, 35.0), _at_most(50.0, 50.0), _maximum(75.0)),
            "Femur_L": (_maximum(50.0), _at_most(50.0, 5.0)),
            "Femur_R": (_maximum(50.0), _at_most(50.0, 5.0)),
            "Bowel": (_maximum(52.0), Limit("v_cc", 195.0, 45.0)),
        },
        optional=("PTV56", "PTV50.4"),
    )
}


@dataclass(frozen=True)
class CheckedLimit:
    """A limit of a structure and what became of it; without a value it is missing."""

    structure: str
    limit: Limit
    value: float | None

    @property
    def margin(self) -> float | None:
        """How far the value keeps away from the bound, in its unit; negative where the limit is violated.

        On the bound is what differs from it by no more than doses in single precision and sums of volumes are rounded.
        """
        if self.value is None:
            return None
        bound = self.limit.bound
        margin = self.value - bound if self.limit.is_minimum else bound - self.value
        return 0.0 if abs(margin) <= _ROUNDING * bound else margin

    @property
    def outcome(self) -> Outcome:
        """Passed, violated or missing; exactly on the bound is passed."""
        if self.margin is None:
            return Outcome.MISSING
        return Outcome.PASSED if self.margin >= 0 else Outcome.VIOLATED

    def row(self) -> dict[str, Any]:
        """Return a row of the table of limits."""
        return {
            "structure": self.structure,
            "region": self.limit.region(self.structure),
            "limit": self.limit.name,
            "comparison": ">=" if self.limit.is_minimum else "<=",
            "bound": self.limit.bound,
            "value": self.value,
            "margin": self.margin,
            "outcome": str(self.outcome),
        }


@dataclass(frozen=True)
class CheckedLimits:
    """All limits of a protocol for one dose. What is missing counts neither as kept nor as violated."""

    protocol: Protocol
    limits: tuple[CheckedLimit, ...]

    def of(self, outcome: Outcome) -> tuple[CheckedLimit, ...]:
        """Return the limits with one outcome."""
        return tuple(one for one in self.limits if one.outcome is outcome)

    @property
    def compliance_rate(self) -> float | None:
        """Share of the judged limits that are kept; None where none could be judged."""
        passed, violated = len(self.of(Outcome.PASSED)), len(self.of(Outcome.VIOLATED))
        return passed / (passed + violated) if passed + violated else None

    @property
    def overall_pass(self) -> bool | None:
        """False with a violation; None where nothing is violated, but something that a plan must have is missing."""
        if self.of(Outcome.VIOLATED):
            return False
        missing = {one.structure for one in self.of(Outcome.MISSING)} - set(self.protocol.optional)
        return None if missing or not self.of(Outcome.PASSED) else True

    def to_json(self) -> dict[str, Any]:
        """Return the record that a report holds of a case."""
        structures: dict[str, list[dict[str, Any]]] = {name: [] for name in self.protocol.limits}
        for one in self.limits:
            structures[one.structure].append({name: cell for name, cell in one.row().items() if name != "structure"})
        return {
            "protocol": self.protocol.name,
            "overall_pass": self.overall_pass,
            "compliance_rate": self.compliance_rate,
            "structures": structures,
            "violations": [_names(one) for one in self.of(Outcome.VIOLATED)],
            "missing": [_names(one) for one in self.of(Outcome.MISSING)],
            "summary": {str(outcome): len(self.of(outcome)) for outcome in Outcome} | {"total": len(self.limits)},
        }


def _names(one: CheckedLimit) -> str:
    return f"{one.structure} {one.limit.name}"


def protocol_of(name: str) -> Protocol:
    """Return a protocol.

    Raises:
        UnknownOptionError: There is none of this name.
    """
    if name not in PROTOCOLS:
        raise UnknownOptionError(f"evaluate.doses.limits: expected one of {sorted(PROTOCOLS)} or null, got {name!r}")
    return PROTOCOLS[name]


def check_limits(dvhs: Mapping[str, Dvh | None], protocol: Protocol) -> CheckedLimits:
    """Compare every limit of a protocol with a dose.

    Args:
        dvhs: Of the regions of `regions_of`; one that is not there, or None, is missing.
        protocol: Its limits.
    """
    found = []
    for structure, limits in protocol.limits.items():
        for limit in limits:
            dvh = dvhs.get(limit.region(structure))
            found.append(CheckedLimit(structure, limit, None if dvh is None else float(limit.value(dvh))))
    return CheckedLimits(protocol, tuple(found))


def regions_of(
    shares: Mapping[str, Bool[np.ndarray, "i j k"] | UInt8[np.ndarray, "i j k"]], protocol: Protocol
) -> dict[str, Bool[np.ndarray, "i j k"] | UInt8[np.ndarray, "i j k"]]:
    """Return where the limits that leave other structures out are measured, such as "PTV56 - PTV70".

    A voxel with any share of the structure that is left out is left out whole: its dose belongs to both.

    Args:
        shares: Masks, or shares of voxels as `DoseCase.coverage` holds them; structures that are not there are
            missing, and take nothing out of others.
        protocol: Its limits.
    """
    regions = {}
    for structure, limits in protocol.limits.items():
        for limit in limits:
            if structure in shares and limit.without:
                taken_out = [shares[name] > 0 for name in limit.without if name in shares]
                kept = ~np.logical_or.reduce(taken_out) if taken_out else True
                regions[limit.region(structure)] = shares[structure] * np.asarray(kept, shares[structure].dtype)
    return regions


CONSTRAINT_NAMES = (
    "ptv70_dose", "ptv56_dose", "ptv50.4_dose",
    "rectum_v50", "rectum_v60", "rectum_v70", "rectum_dmax",
    "bladder_v65", "bladder_v70", "bladder_v75",
    "femur_v50", "bowel_v45_cc", "cord_dmax",
)  # fmt: skip
# The last ten entries. They say what the planner is told, not what `PROTOCOLS` judges by: some differ.
_TOLD = (0.50, 0.35, 0.20, 75.0 / PTV70_GY, 0.50, 0.35, 0.25, 0.10, 195.0 / _BOWEL_CC, 45.0 / PTV70_GY)
_PRESCRIBED = {"PTV70": 1.0, "PTV56": PTV56_GY / PTV70_GY, "PTV50.4": PTV50_GY / PTV70_GY}


def constraint_vector(structures_present: Collection[str]) -> Float32[np.ndarray, " 13"]:
    """Return what a network is told of the protocol: `CONSTRAINT_NAMES`, doses as fractions of 70 Gy.

    Every entry is constant for the protocol, but the doses of the targets are 0 for targets that the patient does
    not have. Nothing is taken from the delivered dose, so that a prediction cannot know what it is to predict.

    Args:
        structures_present: Of the patient, and of the dataset: one that does not know PTV50.4 has no dose for it.
    """
    prescribed = (dose if name in structures_present else 0.0 for name, dose in _PRESCRIBED.items())
    return np.fromiter(chain(prescribed, _TOLD), np.float32, len(CONSTRAINT_NAMES))
