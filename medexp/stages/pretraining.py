"""What the weights that a training starts from have seen: none of it may be what the training is judged by."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medexp.io.leakage import require_disjoint
from medexp.io.prepared import MANIFEST, PreparedCohort, StoredCase
from medexp.runs.ledger import Run
from medexp.runs.lineage import all_runs
from medexp.stages.context import Context

_REMEDY = (
    "Weights that have seen a case cannot be judged by it. Start from weights of the same fold, or prepare the earlier "
    "cohort without these patients (upstream.overrides, model.weights)."
)


@dataclass(frozen=True)
class _Side:
    """Cases of one cohort, with what tells whose they are, under names that no other cohort uses."""

    names: tuple[str, ...]
    patient_of: dict[str, str]
    voxels_of: dict[str, list[str]]

    @classmethod
    def of(cls, cases: Sequence[StoredCase], place: str) -> "_Side":
        named = {f"{case.case} ({place})": case for case in cases}
        patients = {name: case.patient for name, case in named.items()}
        return cls(tuple(named), patients, {name: _hashes(case) for name, case in named.items()})


def require_unseen(context: Context, *, fold: int) -> None:
    """Refuse to train on from weights that were trained on cases which this run validates or tests on.

    Every earlier training counts: the upstream run `initial`, the recorded run whose weights `model.weights` are, and
    those behind them, whatever cohort they were trained on. Cases are compared by patient, by stored voxels and by
    the bytes of their files.

    Raises:
        LeakageError: Lists the pairs.
    """
    earlier = list(_trainings(context))
    if not earlier:
        return
    own = PreparedCohort.open(context.upstream["prepared"][0].folder)
    judged = _Side.of([*own.fold(fold)[1], *own.test_cases], "here")
    for run in earlier:
        seen = _Side.of(_training_cases(run), run.name)
        require_disjoint(
            {f"the training cases of {run.name}": seen.names, f"what fold {fold} is judged by": judged.names},
            patient_of={**seen.patient_of, **judged.patient_of},
            voxels_of={**seen.voxels_of, **judged.voxels_of},
            remedy=_REMEDY,
        )


def _hashes(case: StoredCase) -> list[str]:
    stored = [str(key) for key in case.record["channel_sha256"] if key]
    return [*stored, *(str(entry["sha256"]) for entry in case.record["images"].values())]


def _training_cases(run: Run) -> list[StoredCase]:
    train, _ = PreparedCohort.open(_folders(run, "prepared")[0]).fold(int(run.record["received"]["fold"]))
    return train


def _trainings(context: Context) -> Iterator[Run]:
    """Yield every recorded training behind a run's initial weights, each once."""
    pending, seen = [*context.upstream.get("initial", []), *_origin(context.run, context.output_dir)], set()
    while pending:
        run = pending.pop(0)
        if run.folder in seen:
            continue
        seen.add(run.folder)
        if any((folder / MANIFEST).exists() for folder in _folders(run, "prepared")):
            yield run
        pending += [Run.read(folder) for folder in _folders(run, "initial")]
        pending += _origin(run, context.output_dir)


def _folders(run: Run, name: str) -> list[Path]:
    recorded = run.record.get("upstream", {}).get(name, [])
    return [Path(os.path.normpath(run.folder / relative)) for relative in recorded]


def _origin(run: Run, output_dir: Path) -> list[Run]:
    """Return the recorded runs whose best weights are those that `model.weights` named for this run."""
    model = run.record.get("received", {}).get("model") or {}
    digest = model.get("weights")
    if digest is None:
        return []
    others = [other for other in all_runs(output_dir) if other.folder != run.folder]
    return [other for other in others if "best" in other.outputs() and other.output("best").sha256 == digest]
