"""The folder of a synthetic cohort: written once, found again, and never mixed with anything else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medexp.errors import ConfigurationError
from medexp.runs.files import read_json, write_json

MARKER = ".medexp-mock.json"
_UNFINISHED = ".writing-"  # what a killed writer leaves


@dataclass
class MockFolder:
    """Remembers, in a hidden marker, from which settings its files were made and which they are.

    Args:
        root: The folder; created if it is missing.
        settings: Everything that the files depend on; plain values.
    """

    root: Path
    settings: Mapping[str, Any]
    written: dict[str, int] = field(default_factory=dict)

    def fill(self, write: Mapping[str, Callable[[Path], None]]) -> bool:
        """Write each file by its function unless all are there already; say whether anything was written.

        Files of another mock cohort in the folder are replaced.

        Raises:
            ConfigurationError: The folder holds something that mock did not write.
            StorageError: A file cannot be written.
        """
        recorded = self._recorded()
        if recorded.get("settings") == self.settings and self._is_complete(recorded):
            return False
        self._remove(recorded.get("files", {}))
        write_json(self._marker, {"settings": self.settings, "files": dict.fromkeys(write, 0), "complete": False})
        for name, writer in write.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            writer(path)
            self.written[name] = path.stat().st_size
        write_json(self._marker, {"settings": self.settings, "files": self.written, "complete": True})
        return True

    @property
    def _marker(self) -> Path:
        return self.root / MARKER

    def _recorded(self) -> dict[str, Any]:
        """Return the marker's content after refusing a folder that holds anything else."""
        recorded = dict(read_json(self._marker)) if self._marker.exists() else {}
        known = {MARKER, *recorded.get("files", {})}
        foreign = [name for name in self._present() if name not in known]
        if foreign:
            message = f"mock.root: expected an empty folder or one that stage=mock wrote, found {foreign[0]}"
            raise ConfigurationError(f"{message} and {len(foreign) - 1} more in {self.root}; choose another folder")
        return recorded

    def _present(self) -> list[str]:
        files = sorted(path for path in self.root.rglob("*") if not path.is_dir()) if self.root.exists() else []
        return [path.relative_to(self.root).as_posix() for path in files if not path.name.startswith(_UNFINISHED)]

    def _is_complete(self, recorded: Mapping[str, Any]) -> bool:
        sizes: Mapping[str, int] = recorded["files"]
        paths = {self.root / name: size for name, size in sizes.items()}
        return bool(recorded["complete"]) and all(
            path.is_file() and path.stat().st_size == size for path, size in paths.items()
        )

    def _remove(self, files: Mapping[str, int]) -> None:
        leftovers = list(self.root.rglob(f"{_UNFINISHED}*")) if self.root.exists() else []
        for path in (*(self.root / name for name in files), *leftovers):
            path.unlink(missing_ok=True)
        for folder in sorted({(self.root / name).parent for name in files}, reverse=True):
            if folder != self.root and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
