"""What has been predicted so far, and the manifest of all predictions."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medexp.io.prepared import StoredCase
from medexp.runs.files import sha256_of, write_json
from medexp.runs.ledger import Output
from medexp.stages.context import Context, Result

log = logging.getLogger(__name__)

FORMAT = 1


class Journal:
    """A line per case while the run goes on, predictions.json at its end.

    Paths of predictions are relative to the run's folder, so that the folder can be moved.

    Args:
        context: The run; if it resumes, what its earlier attempts wrote by the same checkpoints is kept.
        checkpoints: What predicts.
    """

    def __init__(self, context: Context, checkpoints: Sequence[Output]) -> None:
        self.folder = context.run.folder / "predictions"
        self._run = context.run
        self._checkpoints = [{"path": str(one.path), "sha256": one.sha256} for one in checkpoints]
        self._path = context.run.folder / "predictions.jsonl"
        self._entries: dict[str, dict[str, Any]] = {}
        if context.resume and self._path.exists():
            self._entries = self._read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(self._line(entry) for entry in self._entries.values()), encoding="utf-8")
        if self._entries:
            log.info("resume: %d cases are predicted already", len(self._entries))

    def holds(self, case: str) -> bool:
        """Say whether the case was predicted by the same checkpoints and its file is what was written."""
        return case in self._entries

    def note(self, case: str, paths: dict[str, Path]) -> None:
        """Record a case whose files are on the disk."""
        relative = {name: path.relative_to(self._run.folder).as_posix() for name, path in paths.items()}
        self._entries[case] = {"case": case, **relative, "sha256": sha256_of(paths["prediction"])}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(self._line(self._entries[case]))

    def result(self, cases: Iterable[StoredCase], source: str, *, not_predicted: Sequence[str] = ()) -> Result:
        """Write the manifest of all predictions; `not_predicted` are cases that one would expect among them."""
        manifest = self._run.folder / "predictions.json"
        entries = [{**self._entries[case.case], **_sources(case)} for case in cases]
        record = {"format": FORMAT, "source": str(source), "checkpoints": self._checkpoints, "cases": entries}
        record["not_predicted"] = list(not_predicted)
        write_json(manifest, record)
        count = f"{len(entries)} case{'s' if len(entries) != 1 else ''} of {source}"
        models = f"{len(self._checkpoints)} model{'s' if len(self._checkpoints) != 1 else ''}"
        line = f"predicted {count} by {models}: {self.folder}"
        # Every file, so that a lost one is noticed and made again.
        files = {f"prediction/{entry['case']}": self._run.folder / entry["prediction"] for entry in entries}
        return Result(outputs={"predictions": manifest, **files}, lines=(line,))

    def _line(self, entry: dict[str, Any]) -> str:
        return json.dumps({**entry, "checkpoints": [one["sha256"] for one in self._checkpoints]}) + "\n"

    def _read(self) -> dict[str, dict[str, Any]]:
        wanted = [one["sha256"] for one in self._checkpoints]
        kept = {}
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written when the run was killed
                break
            path = self._run.folder / entry["prediction"]
            if entry.pop("checkpoints") == wanted and path.exists() and sha256_of(path) == entry["sha256"]:
                kept[str(entry["case"])] = entry
        return kept


def _sources(case: StoredCase) -> dict[str, Any]:
    """Return where a case's image and reference are."""
    return {
        "patient": case.patient,
        "reference": None if case.reference_path is None else str(case.reference_path),
        "images": {channel: str(path) for channel, path in case.image_paths.items()},
    }
