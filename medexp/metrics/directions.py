"""Which way a column of a per-case table is better."""

from collections.abc import Sequence

from medexp.errors import ConfigurationError

_HIGHER = frozenset(
    {
        "mean_dice", "dice", "iou", "sensitivity", "precision", "lesionwise_dice", "lesions_matched", "object_f1",
        "object_precision", "object_recall", "mean_matched_iou", "mean_average_precision", "objects_matched",
        "limits_compliance_rate", "limits_passed",
    }
)  # fmt: skip
_LOWER = frozenset(
    {
        "hd95_mm", "lesionwise_hd95_mm", "lesions_spurious", "lesions_missed", "objects_spurious", "objects_missed",
        "mae_gy", "rmse_gy", "limits_violated", "num_negative_voxels", "num_excessive_voxels",
    }
)  # fmt: skip
_HIGHER_BEGINNINGS = ("nsd_", "lesionwise_nsd_", "gamma_pass_rate_")
_LOWER_BEGINNINGS = ("gamma_mean_",)
_LOWER_ENDINGS = ("_error_gy", "_error_percent")  # absolute differences


def is_higher_better(column: str, *, higher: Sequence[str] = (), lower: Sequence[str] = ()) -> bool:
    """Say whether larger values of a column such as `hd95_mm/WT` are better ones.

    Args:
        column: `<score>` or `<score>/<label or region>`.
        higher: Columns or scores of which the caller says so.
        lower: Columns or scores of which the caller says the opposite.

    Raises:
        ConfigurationError: Nobody says it, or both is said.
    """
    names = {column, column.partition("/")[0]}
    said_higher, said_lower = bool(names & set(higher)), bool(names & set(lower))
    if said_higher and said_lower:
        raise ConfigurationError(
            f"compare: {column} stands in higher_is_better and in lower_is_better; take it out of one"
        )
    if said_higher or said_lower:
        return said_higher
    score = column.partition("/")[0]
    if score in _HIGHER or score.startswith(_HIGHER_BEGINNINGS):
        return True
    if score in _LOWER or score.startswith(_LOWER_BEGINNINGS) or score.endswith(_LOWER_ENDINGS):
        return False
    raise ConfigurationError(
        f"compare.metrics: expected a column with a known direction, got {column}; say it with "
        f"compare.higher_is_better=[{score}] or compare.lower_is_better=[{score}]"
    )
