"""What stage=evaluate wrote, read back and compared with what the ledger recorded of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medexp.errors import ManifestError
from medexp.io.tables import number, read_table
from medexp.plots.theme import REGION_COLOR, colors_of
from medexp.runs.files import read_json
from medexp.runs.ledger import Run

_TEXT = ("case", "patient")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its manifest, the per-case table (worst case first), the lesions and the summary."""

    run: Run
    manifest: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]
    lesions: Sequence[Mapping[str, str]]
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run) -> "Evaluation":
        """Read the files of a finished run.

        Raises:
            CheckpointMismatchError: A file changed after the run ended.
            ManifestError: A file is missing or does not say what it must.
        """
        files = {name: output.verified() for name, output in run.outputs().items()}
        if "evaluation" in files and "cases" not in files:
            message = f"{run.folder}: expected an evaluation with scores, got one of evaluate.measure_only=true"
            raise ManifestError(f"{message}; name references, or read its tables")
        missing = sorted({"evaluation", "cases", "summary"} - files.keys())
        if missing:
            message = f"{run.folder}: expected the outputs of stage=evaluate, {missing} are missing"
            raise ManifestError(f"{message}; run it again")
        cases = [
            {name: cell if name in _TEXT else number(cell) for name, cell in row.items()}
            for row in read_table(files["cases"])
        ]
        return cls(
            run=run,
            manifest=read_json(files["evaluation"]),
            cases=sorted(cases, key=_goodness),
            lesions=read_table(files["lesions"]) if "lesions" in files else [],
            summary=read_json(files["summary"])["medexp"],
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for: labels, regions, policies, protocol."""
        return self.manifest["settings"]

    @property
    def of_images(self) -> bool:
        """Whether images with objects were scored, not volumes."""
        return "objects" in self.settings

    @property
    def of_doses(self) -> bool:
        """Whether doses were scored."""
        return "doses" in self.settings

    @property
    def main_column(self) -> str:
        """The column of the per-case table that says how good a case is."""
        return "mae_gy" if self.of_doses else "mean_dice"

    @property
    def labels(self) -> Mapping[str, int]:
        """The value of each label."""
        return self.settings["labels"]

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """Labels, then regions, then what only the lesion-wise scores know."""
        lesionwise = [name.split("/", 1)[1] for name in self.columns if name.startswith("lesionwise_dice/")]
        return tuple(dict.fromkeys([*self.labels, *self.settings["regions"], *lesionwise]))

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The statistics of each column of the per-case table; None where one is undefined."""
        return self.summary["columns"]

    @cached_property
    def colors(self) -> dict[str, str]:
        """The color of each structure; regions share one."""
        return dict.fromkeys(self.structures, REGION_COLOR) | colors_of(self.labels)

    @cached_property
    def main_structure(self) -> str:
        """What a headline speaks of: the first region, or the first label where there is none."""
        return next(iter(self.settings["regions"]), next(iter(self.labels)))

    @property
    def main_nsd_mm(self) -> float | None:
        """The tolerance of the surface Dice that is shown: 1 mm if it was computed."""
        tolerances = [float(tolerance) for tolerance in self.settings["nsd_tolerances_mm"]]
        return 1.0 if 1.0 in tolerances else next(iter(tolerances), None)

    @cached_property
    def lesions_of(self) -> Mapping[str, list[Mapping[str, str]]]:
        """The lesions of each case."""
        found: defaultdict[str, list[Mapping[str, str]]] = defaultdict(list)
        for row in self.lesions:
            found[row["case"]].append(row)
        return found

    @cached_property
    def files_of(self) -> dict[str, Mapping[str, Any]]:
        """The files of each case, as the manifest describes them."""
        return {str(entry["case"]): entry for entry in self.manifest["cases"]}


def _goodness(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    mean = float(row["mean_dice"]) if "mean_dice" in row else -float(row["mae_gy"])
    return mean != mean, mean, str(row["case"])
