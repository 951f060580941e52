"""The quality report of a cohort: qc.json, qc.csv and qc.html, a page that needs no other file."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medexp.geometry.affine import spacing_mm
from medexp.io.prepared import PICTURE, entry_folder
from medexp.plots.overlays import LABEL_COLORS
from medexp.runs.files import write_json, write_text

_COUNTED = {
    "shapes": "shapes",
    "spacings_mm": "voxel sizes, mm",
    "orientations": "orientations",
    "pixel_sizes_um": "pixel sizes, um",
    "types": "types of pixels",
}
_TEMPLATE = Path(__file__).with_name("quality_report.html.j2")


def write_quality_report(manifest: Mapping[str, Any], *, folder: Path, store: Path) -> None:
    """Write the three files to `folder`: cases that were left out first, then those with warnings, then the rest.

    Raises:
        StorageError: A file cannot be written.
    """
    rows = [*(_excluded(record) for record in manifest["excluded"]), *(_row(record) for record in manifest["cases"])]
    summary = _summary(manifest)
    write_json(folder / "qc.json", {"dataset": manifest["dataset"], "summary": summary, "cases": rows})
    write_text(folder / "qc.csv", _csv(rows, _COLUMNS[manifest["kind"]], _with_volumes(manifest)))
    write_text(folder / "qc.html", _page(manifest, rows, summary, store))


def _with_volumes(manifest: Mapping[str, Any]) -> list[str]:
    """Return what has a volume in every case: labels or structures."""
    if manifest["kind"] == "doses":
        return list(manifest["transform"]["structures"])
    return [] if manifest["kind"] == "images" else list(manifest["labels"])


def _excluded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"case": record["case"], "role": record["role"], "status": "left out", "reasons": list(record["reasons"])}


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    common = {
        "case": record["case"],
        "patient": record["patient"],
        "role": record["role"],
        "status": "warning" if record["warnings"] else "good",
        "warnings": list(record["warnings"]),
        "shape": list(record["shape"]),
    }
    if "affine" not in record:
        return common | _of_image(record)
    return common | _of_volume(record) | (_of_dose(record) if "prescription_gy" in record else {})


def _of_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told about an image; `headline` and `content` are for the page."""
    size, count, diameter = record["pixel_size_um"], record["object_count"], record["mean_diameter_px"]
    content = "no mask"
    if record["coverage"] is not None:
        content = f"{count} objects, mask {100 * record['coverage']:.2f} % of the image"
        content += "" if diameter is None else f", mean diameter {diameter:.1f} pixels"
    pixel = "pixel size unknown" if size is None else f"{size[0]:g} x {size[1]:g} um"
    return {
        "pixel_size_um": size,
        "stored_type": record["stored_type"],
        "coverage": record["coverage"],
        "object_count": count,
        "mean_diameter_px": diameter,
        "intensity": list(record["intensity"]),
        "headline": f"{record['stored_type']}, {pixel}",
        "content": content,
    }


def _of_volume(record: Mapping[str, Any]) -> dict[str, Any]:
    voxel_ml = float(np.prod(spacing_mm(np.array(record["affine"], dtype=np.float64)))) / 1000.0
    voxels = record["label_voxels"]
    label_ml = None if voxels is None else {name: round(count * voxel_ml, 3) for name, count in voxels.items()}
    return {
        "spacing_mm": list(record["spacing_mm"]),
        "orientation": record["orientation"],
        "stored_shape": list(record["stored_shape"]),
        "label_ml": label_ml,
        "intensity": list(record["intensity"]),
        "headline": record["orientation"],
        "content": "no label"
        if label_ml is None
        else ", ".join(f"{name} {volume:.1f} ml" for name, volume in label_ml.items()),
    }


def _of_dose(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a case of dose prediction has beside its volumes, and what its checks measured."""
    dose = record["dose"]
    maximum = "not planned yet" if dose is None else f"largest dose {dose['maximum_gy']:.1f} Gy"
    measured = {flag["name"]: flag["value"] for flag in record["flags"]}
    return {
        "case_type": record["case_type"],
        "prescription_gy": record["prescription_gy"],
        "maximum_gy": None if dose is None else dose["maximum_gy"],
        "ptv70_mean_gy": measured.get("ptv70_mean_dose"),
        "ptv70_d95_gy": measured.get("ptv70_d95"),
        "flags": list(record["flags"]),
        "failed_checks": [flag["name"] for flag in record["flags"] if not flag["passed"]],
        "headline": f"{record['case_type']}, {record['prescription_gy']:g} Gy, {maximum}",
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
        **(_counted_images(cases) if manifest["kind"] == "images" else _counted_volumes(cases)),
    }


def _counted_volumes(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "spacings_mm": _counts([case["spacing_mm"] for case in cases]),
        "orientations": _counts([case["orientation"] for case in cases]),
    }


def _counted_images(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "pixel_sizes_um": _counts([case["pixel_size_um"] or "unknown" for case in cases]),
        "types": _counts([case["stored_type"] for case in cases]),
    }


def _counts(values: Sequence[Any]) -> dict[str, int]:
    texts = [value if isinstance(value, str) else " x ".join(f"{number:g}" for number in value) for value in values]
    return {text: texts.count(text) for text in sorted(set(texts), key=lambda text: (-texts.count(text), text))}


_VOLUME_COLUMNS = ("case", "patient", "role", "status", "orientation", "shape", "spacing_mm", "stored_shape")
_IMAGE_COLUMNS = (
    "case", "patient", "role", "status", "shape", "pixel_size_um", "stored_type", "coverage", "object_count",
    "mean_diameter_px",
)  # fmt: skip


_DOSE_COLUMNS = (
    *_VOLUME_COLUMNS, "case_type", "prescription_gy", "maximum_gy", "ptv70_mean_gy", "ptv70_d95_gy", "failed_checks",
)  # fmt: skip
_COLUMNS = {"volumes": _VOLUME_COLUMNS, "images": _IMAGE_COLUMNS, "doses": _DOSE_COLUMNS}
_PICTURES = {
    "images": "Pictures: the image, then its mask on it.",
    "doses": "Pictures: CT, dose from 0 to 75 Gy, dose on the CT and outlines in the axial slice through the middle of "
    "the first structure; below, sagittal and coronal slices, the dose-volume histograms, and the dose from right to "
    "left; the patient's right is on the left.",
}


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], labels: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"{name}_ml" for name in labels), "notes"])
    for row in rows:
        values = [row.get(column, "") for column in columns]
        plain = [_cell(value) for value in values]
        volumes = row.get("label_ml") or {}
        notes = "; ".join(row.get("reasons", row.get("warnings", [])))
        writer.writerow([_inert(value) for value in (*plain, *(volumes.get(name, "") for name in labels), notes)])
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, list):
        return value
    return "; ".join(value) if any(isinstance(one, str) for one in value) else "x".join(f"{one:g}" for one in value)


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
        labels=[(name, LABEL_COLORS[(value - 1) % len(LABEL_COLORS)]) for name, value in _key(manifest).items()],
        pictures_are=_PICTURES.get(manifest["kind"]),
        summary=summary,
        counted=[(title, summary[name]) for name, title in _COUNTED.items() if name in summary],
        is_flat=manifest["kind"] == "images",
        rows=sorted(rows, key=lambda row: (order[row["status"]], row["case"])),
        pictures=pictures,
    )


def _key(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return what is painted, by name, and the number of its color."""
    if manifest["kind"] == "doses":
        return {name: number for number, name in enumerate(manifest["transform"]["structures"], start=1)}
    return dict(manifest["labels"])


def _picture(store: Path, key: str) -> str:
    """Return a case's picture as base64 text; empty if the store has lost it."""
    path = entry_folder(store, key) / PICTURE
    return base64.b64encode(path.read_bytes()).decode("ascii") if path.exists() else ""
