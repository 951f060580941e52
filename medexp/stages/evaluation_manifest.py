"""evaluation.json: what was compared, how, and the digests of everything that an evaluation wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.runs.files import sha256_of, write_json

FORMAT = 1


def write_manifest(
    folder: Path,
    settings: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    files: Mapping[str, Path],
    *,
    predictions: str,
    references: str | None,
    without_reference: Sequence[str] = (),
) -> Path:
    """Write the manifest of an evaluation and return its path.

    Args:
        folder: Of the run.
        settings: Everything that decides what the numbers mean.
        cases: A record for each case: its name, its files with their digests, its grid.
        files: What was written into the folder, by name.
        predictions: Where the predictions come from.
        references: Where the references come from; None: nothing was scored.
        without_reference: Predicted cases that nothing could be compared with.
    """
    record = {
        "format": FORMAT,
        "settings": dict(settings),
        "predictions": predictions,
        "references": references,
        "num_cases": len(cases),
        "cases": [dict(case) for case in cases],
        "without_reference": list(without_reference),
        "files": {
            name: {"path": path.relative_to(folder).as_posix(), "sha256": sha256_of(path)}
            for name, path in files.items()
        },
    }
    path = folder / "evaluation.json"
    write_json(path, record)
    return path
