"""Write a cohort in nnU-Net v2's raw layout, by links where the file system allows them."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from medexp.errors import ConfigurationError, StorageError
from medexp.preparation.raw_cases import RawCase, case_identifier
from medexp.runs.files import atomic_write, read_json, storage_error, write_json
from medexp.runs.identity import identity_of

_MARKER = "medexp.json"  # tells our folders from others'
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


@dataclass(frozen=True)
class RawLayout:
    """Where and how the layout is written.

    `root` is a folder such as `$nnUNet_raw`; None means inside the run's folder. `link` is hard, symbolic or
    copy; a hard link that the file system refuses becomes a copy. `clean` replaces an existing dataset folder
    that medexp wrote; a folder of somebody else's is never touched.
    """

    root: str | Path | None
    dataset_id: Annotated[int, ">= 1", "<= 999"]
    link: Literal["hard", "symbolic", "copy"]
    clean: bool

    def __post_init__(self) -> None:
        """Check the number."""
        if not 1 <= self.dataset_id <= 999:
            raise ConfigurationError(f"prepare.nnunet_id: expected 1 to 999, got {self.dataset_id}")

    def write(
        self,
        cases: Sequence[RawCase],
        *,
        name: str,
        channels: Sequence[str],
        labels: Mapping[str, int],
        default_root: Path,
    ) -> Path:
        """Write `Dataset<id>_<name>` with imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

        An existing folder that holds the same is completed; that makes a second run cheap.

        Returns:
            The dataset's folder.

        Raises:
            ConfigurationError: The folder exists and is another's, or holds another cohort and `clean` is off.
            StorageError: A file cannot be written.
        """
        folder = self.require_ours(name, default_root=default_root)
        ending = _ending(cases)
        files = dict(_planned(cases, channels, ending))
        content = identity_of({"files": {k: str(v) for k, v in files.items()}, "labels": dict(labels)})
        self._claim(folder, content)
        for part in _FOLDERS:
            (folder / part).mkdir(exist_ok=True)
        for place, source in files.items():
            self._refer(folder / place, source)
        write_json(folder / "dataset.json", _dataset_json(cases, channels=channels, labels=labels, ending=ending))
        return folder

    def require_ours(self, name: str, *, default_root: Path) -> Path:
        """Return the dataset's folder after refusing one that somebody else wrote.

        Raises:
            ConfigurationError: Names the keys that choose another.
        """
        root = default_root if self.root is None else Path(self.root)
        folder = root / f"Dataset{self.dataset_id:03d}_{case_identifier(name)}"
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
            message = f"{folder}: expected no folder or one that medexp wrote, found another's; choose another"
            raise ConfigurationError(f"{message} prepare.nnunet_id or prepare.nnunet_raw")
        return folder

    def _claim(self, folder: Path, content: str) -> None:
        """Make the folder hold this cohort, or refuse to."""
        marker = folder / _MARKER
        if marker.exists():
            if read_json(marker).get("content") == content:
                return
            if not self.clean:
                message = f"{folder}: expected the cohort of this run, found another one; give prepare.clean=true"
                raise ConfigurationError(f"{message} to replace it, or choose another prepare.nnunet_id")
            shutil.rmtree(folder)
        write_json(marker, {"content": content, "note": "written by medexp stage=prepare; prepare.clean replaces it"})

    def _refer(self, place: Path, source: Path) -> None:
        if place.exists() and (place.samefile(source) or place.stat().st_size == source.stat().st_size):
            return
        place.unlink(missing_ok=True)
        try:
            if self.link == "symbolic":
                place.symlink_to(source.resolve())
                return
            if self.link == "hard":
                os.link(source.resolve(), place)
                return
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
                raise storage_error(place, error) from error
        with atomic_write(place) as temporary:
            shutil.copyfile(source, temporary)


def _ending(cases: Sequence[RawCase]) -> str:
    """Return the one ending that all files share."""
    endings = {".nii.gz" if path.suffix == ".gz" else path.suffix for case in cases for path in case.images.values()}
    if len(endings) != 1:
        raise StorageError(f"expected files of one ending for nnU-Net's layout, got {sorted(endings)}")
    return endings.pop()


def _planned(cases: Sequence[RawCase], channels: Sequence[str], ending: str) -> list[tuple[str, Path]]:
    files = []
    for case in cases:
        side = "Tr" if case.role == "train" else "Ts"
        for number, channel in enumerate(channels):
            files.append((f"images{side}/{case.case}_{number:04d}{ending}", case.images[channel]))
        if case.label is not None:
            files.append((f"labels{side}/{case.case}{ending}", case.label))
    return files


def _dataset_json(
    cases: Sequence[RawCase], *, channels: Sequence[str], labels: Mapping[str, int], ending: str
) -> dict[str, object]:
    train = [case for case in cases if case.role == "train"]
    test = [case for case in cases if case.role == "test"]
    return {
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(train),
        "file_ending": ending,
        "training": [case.case for case in train],
        "test": [case.case for case in test],
        "test_labels_available": bool(test) and all(case.label is not None for case in test),
    }
