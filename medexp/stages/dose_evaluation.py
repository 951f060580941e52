"""Score predicted doses against delivered ones, from their files: tables, summary, report and DVH curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, GridMismatchError
from medexp.io.dose_files import predicted_doses, reference_doses
from medexp.io.tables import write_table
from medexp.metrics.dose_scoring import DoseScoring
from medexp.metrics.openkbp import CohortScores
from medexp.metrics.summary import ColumnSummary
from medexp.runs.files import write_json
from medexp.runs.processes import available_cores
from medexp.stages.context import Context, Result
from medexp.stages.dose_tables import (
    DVH_COLUMNS,
    LIMIT_COLUMNS,
    case_rows,
    curves_record,
    dose_report,
    dvh_rows,
    limit_rows,
    openkbp_of,
    openkbp_row,
)
from medexp.stages.evaluated_files import select
from medexp.stages.evaluation_manifest import write_manifest
from medexp.stages.outcomes import Refused, all_done, listed
from medexp.stages.score_tables import Row, summaries
from medexp.stages.scored_doses import ScoredDose, score_dose_pair


def evaluate_doses(
    predictions: str | Path | None,
    references: str | Path | None,
    scoring: DoseScoring,
    *,
    num_workers: int | None,
    context: Context,
) -> Result:
    """Score every predicted dose.

    Written are cases.csv (a row per case), dvh.csv and constraints.csv (long tables of DVH points and limits),
    dvh_curves.json, summary.json (statistics of the columns, OpenKBP's scores), dose_report.json (the layout of the
    VMAT system) and evaluation.json.

    Args:
        predictions: Any folder of doses (see `medexp.io.dose_files`); None: what the upstream run `predicted` wrote.
        references: Any folder of references; None: those of the predicted cases.
        scoring: What is computed.
        num_workers: Processes; None: one per core.
        context: The run.

    Raises:
        IncompletePredictionsError: Predictions are missing, or nobody asked for them; all are listed.
        GridMismatchError: Doses stand on another grid than their reference; all are listed.
        CohortError: Files cannot be read or hold no dose; all are listed.
    """
    selection = select(
        predictions,
        references,
        context=context,
        find_predictions=predicted_doses,
        find_references=reference_doses,
    )
    workers = max(1, min(available_cores() if num_workers is None else num_workers, len(selection.pairs)))
    scored = all_done(
        partial(score_dose_pair, scoring=scoring, threads=max(1, available_cores() // workers)),
        selection.pairs,
        num_workers=num_workers,
        what="doses scored",
        refusal=partial(_refusal, num_cases=len(selection.pairs)),
    )
    rows = case_rows(scored)
    columns = summaries(rows, empty_reference="nan")
    # "empty_reference": what is undefined is left out and counted, as the comparison of evaluations asks to know.
    settings = {"doses": asdict(scoring), "empty_reference": "nan"}
    files = _write(context.run.folder, scored, rows, columns, scoring, settings)
    files["evaluation"] = write_manifest(
        context.run.folder,
        settings,
        [_case_record(one) for one in scored],
        files,
        predictions=selection.predictions,
        references=selection.references,
        without_reference=selection.without_reference,
    )
    openkbp = openkbp_of(scored)
    _track(context, columns, openkbp, files)
    return _result(files, columns, openkbp, scoring, scored)


def _refusal(refused: Sequence[Refused], num_cases: int) -> CohortError | GridMismatchError:
    message = f"expected {num_cases} pairs of doses that can be compared, {len(refused)} cannot:{listed(refused)}\n"
    if all(one.is_grid for one in refused):
        return GridMismatchError(message + "Predict on the references' grid, or name other files.")
    return CohortError(message + "Correct the files, or name folders without them.")


def _write(
    folder: Path,
    scored: Sequence[ScoredDose],
    rows: Sequence[Row],
    columns: Mapping[str, ColumnSummary],
    scoring: DoseScoring,
    settings: Mapping[str, Any],
) -> dict[str, Path]:
    files = {
        "cases": folder / "cases.csv",
        "dvh": folder / "dvh.csv",
        "dvh_curves": folder / "dvh_curves.json",
        "summary": folder / "summary.json",
        "dose_report": folder / "dose_report.json",
    }
    write_table(files["cases"], rows)
    write_table(files["dvh"], dvh_rows(scored), columns=DVH_COLUMNS)
    if scoring.protocol is not None:
        files["constraints"] = folder / "constraints.csv"
        write_table(files["constraints"], limit_rows(scored), columns=LIMIT_COLUMNS)
    write_json(files["dvh_curves"], curves_record(scored))
    write_json(files["summary"], {"medexp": _summary(scored, columns, settings)})
    write_json(files["dose_report"], dose_report(scored, columns, scoring))
    return files


def _summary(scored: Sequence[ScoredDose], columns: Mapping[str, ColumnSummary], settings: Mapping[str, Any]) -> Row:
    openkbp = openkbp_of(scored)
    return {
        "num_cases": len(scored),
        "columns": {name: summary.row() for name, summary in columns.items()},
        "openkbp": None if openkbp is None else openkbp_row(openkbp),
        "settings": dict(settings),
    }


def _case_record(one: ScoredDose) -> Row:
    return {
        "case": one.pair.case,
        "patient": one.pair.patient,
        "prediction": {"path": str(one.pair.prediction), "sha256": one.prediction_sha256},
        "reference": {"path": str(one.pair.reference), "sha256": one.reference_sha256},
        "shape": list(one.shape),
        "spacing_mm": list(one.spacing_mm),
        "prescription_gy": one.prescription_gy,
        "warnings": list(one.scores.warnings),
    }


def _track(
    context: Context, columns: Mapping[str, ColumnSummary], openkbp: CohortScores | None, files: Mapping[str, Path]
) -> None:
    means = {f"evaluate/{name}": summary.mean for name, summary in columns.items()}
    means |= {f"evaluate/{name}": value for name, value in _openkbp_scores(openkbp).items()}
    context.tracker.log_metrics({name: value for name, value in means.items() if math.isfinite(value)}, 0)
    for path in files.values():
        context.tracker.log_artifact(path)


def _openkbp_scores(openkbp: CohortScores | None) -> dict[str, float]:
    if openkbp is None:
        return {}
    return {"openkbp_dose_score_gy": openkbp.dose_score_gy, "openkbp_dvh_score_gy": openkbp.dvh_score_gy}


def _result(
    files: Mapping[str, Path],
    columns: Mapping[str, ColumnSummary],
    openkbp: CohortScores | None,
    scoring: DoseScoring,
    scored: Sequence[ScoredDose],
) -> Result:
    gammas = [f"gamma_pass_rate_{name}" for name in scoring.criteria]
    targets = [f"{score}/{target}" for target in scoring.targets for score in ("mae_gy", "d95_error_gy")]
    wanted = ["mae_gy", *gammas, *targets]
    scores = {name: columns[name].mean for name in wanted if name in columns} | _openkbp_scores(openkbp)
    defined = {name: value for name, value in scores.items() if math.isfinite(value)}
    lines = _lines(columns, openkbp, scoring, scored)
    return Result(outputs=files, objective=columns["mae_gy"].mean, scores=defined, lines=tuple(lines))


def _lines(
    columns: Mapping[str, ColumnSummary],
    openkbp: CohortScores | None,
    scoring: DoseScoring,
    scored: Sequence[ScoredDose],
) -> list[str]:
    shown = [("MAE", "mae_gy", "Gy")]
    shown += [(f"gamma {text}", f"gamma_pass_rate_{name}", "%") for name, text in scoring.texts.items()]
    for target in scoring.targets:
        for name, text in list(scoring.texts.items())[:1]:
            shown.append((f"gamma {text} near {target}", f"gamma_pass_rate_{name}/{target}", "%"))
        shown.append((f"D95 {target}", f"d95_gy/{target}", "Gy"))
        shown.append((f"D95 {target}, reference", f"reference_d95_gy/{target}", "Gy"))
    found = [(title, columns[name], unit) for title, name, unit in shown if name in columns]
    width = max(len(title) for title, _, _ in found)
    lines = [f"{title:<{width}}  {_cell(summary, unit, len(scored))}" for title, summary, unit in found]
    if openkbp is not None:
        lines.append(
            f"OpenKBP: dose score {openkbp.dose_score_gy:.4f} Gy, DVH score {openkbp.dvh_score_gy:.4f} Gy over "
            f"{openkbp.num_patients} patients and {openkbp.num_metrics} metrics"
        )
    lines.append("mean and standard deviation over cases; in brackets the cases that a mean stands on")
    if scoring.gamma_subsample > 1:
        lines.append(f"gamma_subsample={scoring.gamma_subsample}: this gamma is a proxy, not to be published")
    warned = sum(bool(one.scores.warnings) for one in scored)
    if warned:
        lines.append(f"{warned} {'case has' if warned == 1 else 'cases have'} warnings: see dose_report.json")
    return lines


def _cell(summary: ColumnSummary, unit: str, num_cases: int) -> str:
    if math.isnan(summary.mean):
        return f"- ({summary.n_used}/{num_cases})"
    spread = "" if math.isnan(summary.sd) else f" ± {summary.sd:.2f}"
    return f"{summary.mean:.2f}{spread} {unit} ({summary.n_used}/{num_cases})"
