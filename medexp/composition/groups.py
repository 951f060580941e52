"""The configuration's groups and their options, read from folders; the comment at a file's head describes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Option:
    """One file of a group."""

    name: str
    path: Path

    @property
    def summary(self) -> str:
        """Return the first comment line of the file that is no directive to Hydra."""
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("#"):
                    break
                text = line.lstrip("#").strip()
                if text and not text.startswith("@package"):
                    return text
        return ""


def options_by_group(folders: Iterable[Path]) -> Mapping[str, list[Option]]:
    """Return every group below the folders (`dataset`, `dataset/augmentation`) with its options; Hydra's own left out.

    The first folder that has an option wins, as in Hydra's search path.
    """
    found: dict[str, dict[str, Option]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group != "." and group.partition("/")[0] != "hydra":
                found.setdefault(group, {}).setdefault(path.stem, Option(path.stem, path))
    return {group: [options[name] for name in sorted(options)] for group, options in sorted(found.items())}
