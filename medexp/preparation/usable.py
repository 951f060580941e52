"""What every cohort must be, of volumes or of images: usable cases, and nothing on both sides of a split."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medexp.errors import CohortError
from medexp.io.leakage import require_disjoint
from medexp.preparation.store import Outcome

_log = logging.getLogger(__name__)


def require_separate(cases: Sequence[tuple[str, str, str]], *, voxels_of: Mapping[str, Collection[str]]) -> None:
    """Refuse training and test cases that share a patient or voxels.

    Args:
        cases: Name, role and patient of each.
        voxels_of: Hashes of each case's channels.

    Raises:
        LeakageError: Lists the pairs.
    """
    sides = {
        "the training cases": [case for case, role, _ in cases if role == "train"],
        "the test cases": [case for case, role, _ in cases if role == "test"],
    }
    require_disjoint(sides, patient_of={case: patient for case, _, patient in cases}, voxels_of=voxels_of)


def require_usable(outcomes: Sequence[Outcome], *, skip_bad_cases: bool, report: Path) -> None:
    """Refuse a cohort with cases that cannot be used, unless they are to be skipped, and one without training cases.

    Raises:
        CohortError: Lists the cases and all reasons.
    """
    bad = [outcome for outcome in outcomes if outcome.key is None]
    good = [outcome for outcome in outcomes if outcome.key is not None and outcome.case.role == "train"]
    listing = "".join(
        f"\n  {outcome.case.case}" + "".join(f"\n    {reason}" for reason in outcome.reasons) for outcome in bad
    )
    if bad and not skip_bad_cases:
        message = f"expected {len(outcomes)} usable cases, but {len(bad)} cannot be used:{listing}"
        advice = "Correct the files, or go on without these cases: prepare.skip_bad_cases=true"
        raise CohortError(f"{message}\n{advice}\nThe quality report is {report}")
    if not good:
        raise CohortError(f"expected training cases, but none of {len(outcomes)} cases is a usable one{listing}")
    for outcome in bad:
        _log.warning("left out %s: %s", outcome.case.case, "; ".join(outcome.reasons))
