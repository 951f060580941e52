"""Make a synthetic raw cohort: nothing -> files in the dataset's real raw format."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medexp.preparation.mock_folder import MARKER
from medexp.stages.context import Context, Result
from medexp.types import Count, Index

_ENDINGS = (".nii.gz", ".tif", ".dcm", ".csv")

_log = logging.getLogger(__name__)


def mock(
    datamodule: Any,
    *,
    root: str | Path,
    num_patients: Count,
    shape: Sequence[Count] | None,
    seed: Index,
    context: Context,
) -> Result:
    """Write the cohort to `root`, which may hold nothing else; an equal cohort that is there stays untouched.

    Args:
        datamodule: Knows the raw format (`write_mock_cohort`).
        root: The raw folder.
        num_patients: Number of synthetic patients.
        shape: Voxels of a volume or pixels of an image; None: as large as the dataset has them.
        seed: Another seed, another cohort.
        context: The run.

    Raises:
        ConfigurationError: The folder holds something that mock did not write.
        StorageError: A file cannot be written.
    """
    place = Path(root).absolute()
    written = datamodule.write_mock_cohort(place, num_patients=num_patients, shape=shape, seed=seed)
    files = sorted(path for path in place.rglob("*") if path.name.endswith(_ENDINGS))
    _log.info("%s: %d files of %d synthetic patients", place, len(files), num_patients)
    state = "wrote" if written else "found as it was"
    context.tracker.log_metrics({"mock/files": float(len(files))}, step=0)
    return Result(
        outputs={"cohort": place / MARKER, **{str(path.relative_to(place)): path for path in files}},
        lines=(f"{state}: {num_patients} synthetic patients, {len(files)} files in {place}",),
    )
