"""What stage=evaluate wrote about doses, read back: scoring, tables of DVH points and limits, curves, goals."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medexp.io.tables import read_table
from medexp.metrics.dose_scoring import DoseScoring
from medexp.plots.dose_colors import structure_colors
from medexp.runs.files import read_json
from medexp.stages.recorded_evaluation import Evaluation


@dataclass(frozen=True)
class DoseEvaluation:
    """An evaluation of doses with its long tables; `Evaluation.of` has compared them with what was recorded."""

    evaluation: Evaluation

    @cached_property
    def scoring(self) -> DoseScoring:
        """What was computed."""
        return DoseScoring(**self.evaluation.settings["doses"])

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """The structures that any case has, in the dataset's order."""
        return tuple(name for name in self.scoring.structures or () if f"mae_gy/{name}" in self.columns)

    @property
    def targets(self) -> tuple[str, ...]:
        """Those among the structures that are targets, the highest prescription first."""
        doses = self.scoring.targets
        return tuple(sorted((name for name in doses if name in self.structures), key=lambda name: -float(doses[name])))

    @cached_property
    def colors(self) -> dict[str, str]:
        """Of the dataset's structures, and of those that only the protocol speaks of."""
        limited = dict.fromkeys(row["structure"] for row in self.limit_rows)
        return structure_colors(list(dict.fromkeys([*(self.scoring.structures or ()), *limited])))

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The statistics of each column of the per-case table."""
        return self.evaluation.columns

    @cached_property
    def limit_rows(self) -> list[dict[str, str]]:
        """The table of limits; empty where none were checked."""
        outputs = self.evaluation.run.outputs()
        return read_table(outputs["constraints"].path) if "constraints" in outputs else []

    @cached_property
    def dvh_rows(self) -> list[dict[str, str]]:
        """The table of DVH points."""
        return read_table(self.evaluation.run.output("dvh").path)

    @cached_property
    def dvh_curves(self) -> Mapping[str, Any]:
        """The cumulative DVHs: `step_gy`, and `cases` by case, structure and side."""
        return read_json(self.evaluation.run.output("dvh_curves").path)

    @cached_property
    def goals(self) -> Mapping[str, Any]:
        """Whether the means reach what was aimed for."""
        goals: Mapping[str, Any] = read_json(self.evaluation.run.output("dose_report").path)["goal_assessment"]
        return goals
