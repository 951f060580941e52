"""The quality report of a cohort: qc.json, qc.csv and qc.html, a page that needs no other file."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medexp.geometry.affine import spacing_mm
from medexp.io.prepared import entry_folder
from medexp.plots.overlays import LABEL_COLORS
from medexp.runs.files import write_json, write_text

_TEMPLATE = Path(__file__).with_name("quality_report.html.j2")


def write_quality_report(manifest: Mapping[str, Any], *, folder: Path, store: Path) -> None:
    """Write the three files to `folder`: cases that were left out first, then those with warnings, then the rest.

    Raises:
        StorageError: A file cannot be written.
    """
    rows = [*(_excluded(record) for record in manifest["excluded"]), *(_row(record) for record in manifest["cases"])]
    summary = _summary(manifest)
    write_json(folder / "qc.json", {"dataset": manifest["dataset"], "summary": summary, "cases": rows})
    write_text(folder / "qc.csv", _csv(rows, manifest["labels"]))
    write_text(folder / "qc.html", _page(manifest, rows, summary, store))


def _excluded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"case": record["case"], "role": record["role"], "status": "left out", "reasons": list(record["reasons"])}


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    voxel_ml = float(np.prod(spacing_mm(np.array(record["affine"], dtype=np.float64)))) / 1000.0
    voxels = record["label_voxels"]
    return {
        "case": record["case"],
        "patient": record["patient"],
        "role": record["role"],
        "status": "warning" if record["warnings"] else "good",
        "warnings": list(record["warnings"]),
        "shape": list(record["shape"]),
        "spacing_mm": list(record["spacing_mm"]),
        "orientation": record["orientation"],
        "stored_shape": list(record["stored_shape"]),
        "label_ml": None if voxels is None else {name: round(count * voxel_ml, 3) for name, count in voxels.items()},
        "intensity": list(record["intensity"]),
    }


def _summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    cases = manifest["cases"]
    return {
        "usable": len(cases),
        "left_out": len(manifest["excluded"]),
        "with_warnings": sum(bool(case["warnings"]) for case in cases),
        "training": sum(case["role"] == "train" for case in cases),
        "test": sum(case["role"] == "test" for case in cases),
        "patients": len({case["patient"] for case in cases}),
        "shapes": _counts([case["shape"] for case in cases]),
        "spacings_mm": _counts([case["spacing_mm"] for case in cases]),
        "orientations": _counts([case["orientation"] for case in cases]),
    }


def _counts(values: Sequence[Any]) -> dict[str, int]:
    texts = [value if isinstance(value, str) else " x ".join(f"{number:g}" for number in value) for value in values]
    return {text: texts.count(text) for text in sorted(set(texts), key=lambda text: (-texts.count(text), text))}


def _csv(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, int]) -> str:
    columns = ["case", "patient", "role", "status", "orientation", "shape", "spacing_mm", "stored_shape"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"{name}_ml" for name in labels), "notes"])
    for row in rows:
        values = [row.get(column, "") for column in columns]
        plain = ["x".join(f"{number:g}" for number in value) if isinstance(value, list) else value for value in values]
        volumes = row.get("label_ml") or {}
        notes = "; ".join(row.get("reasons", row.get("warnings", [])))
        writer.writerow([_inert(value) for value in (*plain, *(volumes.get(name, "") for name in labels), notes)])
    return text.getvalue()


def _inert(value: object) -> object:
    """Return text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _page(
    manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], store: Path
) -> str:
    import jinja2

    pictures = {record["case"]: _picture(store, str(record["store"])) for record in manifest["cases"]}
    order = {"left out": 0, "warning": 1, "good": 2}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        dataset=manifest["dataset"],
        channels=manifest["channels"],
        labels=[(name, LABEL_COLORS[(value - 1) % len(LABEL_COLORS)]) for name, value in manifest["labels"].items()],
        summary=summary,
        rows=sorted(rows, key=lambda row: (order[row["status"]], row["case"])),
        pictures=pictures,
    )


def _picture(store: Path, key: str) -> str:
    """Return a case's picture as base64 text; empty if the store has lost it."""
    path = entry_folder(store, key) / "picture.png"
    return base64.b64encode(path.read_bytes()).decode("ascii") if path.exists() else ""
