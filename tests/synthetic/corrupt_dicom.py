"""DICOM patients that must not pass: each maker takes the files of a good one, by what they are, and spoils them."""

import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

Files = Mapping[str, Path]
Maker = Callable[[Files], None]

DEFLATED = "1.2.840.10008.1.2.1.99"


def edit(path: Path, change: Callable[[pydicom.Dataset], Any], *, at: Path | None = None) -> None:
    """Change an object in place, or write the changed one elsewhere; values are not judged."""
    mode = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(at or path)
    finally:
        pydicom.config.settings.writing_validation_mode = mode


def put(name: str, **attributes: Any) -> Maker:
    """Return a maker that sets attributes of an object."""

    def spoil(files: Files) -> None:
        edit(files[name], lambda dataset: [setattr(dataset, keyword, value) for keyword, value in attributes.items()])

    return spoil


def put_raw(name: str, keyword: str, value: bytes) -> Maker:
    """Return a maker that writes a text attribute's bytes as they are, whatever the standard says."""

    def spoil(files: Files) -> None:
        marker = "987654321012"

        def mark(dataset: pydicom.Dataset) -> None:
            dataset[keyword].value = marker

        edit(files[name], mark)
        content = files[name].read_bytes()
        assert content.count(marker.encode()) == 1
        assert len(value) <= len(marker)
        files[name].write_bytes(content.replace(marker.encode(), value.ljust(len(marker))))

    return spoil


def drop(name: str, keyword: str) -> Maker:
    """Return a maker that removes an attribute."""
    return lambda files: edit(files[name], lambda dataset: delattr(dataset, keyword))


def remove(*names: str) -> Maker:
    """Return a maker that deletes files; a name that ends in `*` stands for all that begin so."""

    def spoil(files: Files) -> None:
        for name, path in files.items():
            if name in names or any(one[-1] == "*" and name.startswith(one[:-1]) for one in names):
                path.unlink()

    return spoil


def cut(name: str, share: float) -> Maker:
    """Return a maker that keeps the beginning of a file."""

    def spoil(files: Files) -> None:
        content = files[name].read_bytes()
        files[name].write_bytes(content[: int(len(content) * share)])

    return spoil


def every(*names: str, change: Callable[[pydicom.Dataset], Any]) -> Maker:
    """Return a maker that changes all objects whose names begin so."""

    def spoil(files: Files) -> None:
        for name, path in files.items():
            if name.startswith(names):
                edit(path, change)

    return spoil


def random_bytes(files: Files) -> None:
    files["ct_003"].write_bytes(np.random.default_rng(0).bytes(4000))


def random_after_magic(files: Files) -> None:
    files["plan"].write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(4000))


def empty(files: Files) -> None:
    files["ct_003"].write_bytes(b"")


def deflated(path: Path, *, padding: int = 0, keep: float = 1.0) -> None:
    """Rewrite an explicit little-endian object as a deflated one, with zeros behind it."""
    content = path.read_bytes()
    meta_end = 132 + 12 + int.from_bytes(content[140:144], "little")
    meta = content[:meta_end]
    old = ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    new = DEFLATED.encode()
    assert meta.count(old) == 1
    meta = meta.replace(len(old).to_bytes(2, "little") + old, len(new).to_bytes(2, "little") + new)
    meta = meta[:140] + (len(meta) - 144).to_bytes(4, "little") + meta[144:]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    beginning = packer.compress(content[meta_end:]) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # depends on nothing before it
    packed = beginning + zeros * (padding >> 20) + packer.flush()
    path.write_bytes(meta + packed[: int(len(packed) * keep)])


def bomb(files: Files) -> None:
    deflated(files["dose"], padding=600 << 20)


def truncated_deflate(files: Files) -> None:
    deflated(files["structures"], keep=0.5)


def second(name: str, *, uid: bool = True, **attributes: Any) -> Maker:
    """Return a maker that puts a changed copy beside an object, with a UID of its own."""

    def spoil(files: Files) -> None:
        def change(dataset: pydicom.Dataset) -> None:
            if uid:
                dataset.SOPInstanceUID = generate_uid()
                dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

        edit(files[name], change, at=files[name].with_name(f"second_{name}.dcm"))

    return spoil


def second_structures_without_reference(files: Files) -> None:
    drop("plan", "ReferencedStructureSetSequence")(files)
    second("structures")(files)


def negative_dose(files: Files) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i4").copy()
        stored[7] = -5000
        dataset.PixelData, dataset.PixelRepresentation = stored.tobytes(), 1

    edit(files["dose"], change)


def shifted_slice(files: Files) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 1.5]

    edit(files["ct_004"], change)


def sheared(files: Files) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.3 * dataset.InstanceNumber, z]

    every("ct_", change=change)(files)


def spoil_contour(change: Callable[[pydicom.Dataset], Any]) -> Maker:
    return lambda files: edit(
        files["structures"], lambda dataset: change(dataset.ROIContourSequence[0].ContourSequence[0])
    )


def foreign_structures(files: Files) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        uid = generate_uid()
        dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = uid

    edit(files["structures"], change)


def foreign_dose(files: Files) -> None:
    put("dose", FrameOfReferenceUID=generate_uid())(files)


def other_plan(files: Files) -> None:
    edit(
        files["dose"],
        lambda dataset: setattr(dataset.ReferencedRTPlanSequence[0], "ReferencedSOPInstanceUID", generate_uid()),
    )


def nested(files: Files) -> None:
    """Sequences within sequences, deeper than Python recurses."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    start = b"\x06\x30\x10\x00SQ\x00\x00\xff\xff\xff\xff" + item
    content = files["structures"].read_bytes()
    meta_end = 132 + 12 + int.from_bytes(content[140:144], "little")
    files["structures"].write_bytes(content[:meta_end] + start * 20_000)


def encoded(files: Files) -> None:
    """Says JPEG 2000 and holds something else."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    edit(files["ct_002"], change)


def link_to_itself(files: Files) -> None:
    os.symlink(files["plan"].parent, files["plan"].parent / "again", target_is_directory=True)


# What is spoiled: how, and what the reason must say.
CORPUS: dict[str, tuple[Maker, str]] = {
    "dose without scaling": (drop("dose", "DoseGridScaling"), "expected DoseGridScaling, got none"),
    "dose with negative scaling": (put("dose", DoseGridScaling="-1e-3"), "positive DoseGridScaling, got -0.001"),
    "dose with NaN scaling": (put_raw("dose", "DoseGridScaling", b"NaN"), "finite numbers in DoseGridScaling"),
    "dose in percent": (put("dose", DoseUnits="RELATIVE"), "DoseUnits GY, got 'RELATIVE'"),
    "biological dose": (put("dose", DoseType="EFFECTIVE"), "DoseType PHYSICAL, got 'EFFECTIVE'"),
    "negative dose": (negative_dose, r"doses of 0 or more, got -.* Gy and 1 negative"),
    "dose of a fraction": (put("dose", DoseSummationType="FRACTION"), "sums the PLAN, or one per BEAM"),
    "two doses of the plan": (second("dose"), "one RTDOSE of the plan, got 2"),
    "dose of another plan": (other_plan, "RTDOSE of the plan in the folder, got only ones of other plans"),
    "dose in a foreign frame": (foreign_dose, "RTDOSE .*: expected the CT's frame of reference"),
    "dose with too many frames": (put("dose", NumberOfFrames=1_000_000), "1000000 x .* by its header"),
    "dose with short offsets": (put("dose", GridFrameOffsetVector=[0.0, 5.0]), "16 numbers in GridFrameOffset"),
    "dose with odd offsets": (
        put("dose", GridFrameOffsetVector=[7.0 + 5.0 * n for n in range(16)]),
        "begins with 0 or with the z",
    ),
    "dose cut short": (cut("dose", 0.6), "truncated|intact DICOM object"),
    "structures in a foreign frame": (foreign_structures, "RTSTRUCT .*: expected the CT's frame of reference"),
    "structures that say to lie elsewhere": (
        lambda files: put("structures", FrameOfReferenceUID=generate_uid())(files),
        "RTSTRUCT .*: expected the CT's frame of reference",
    ),
    "two plans": (second("plan"), "one RTPLAN, got 2"),
    "two structure sets": (second_structures_without_reference, "one RTSTRUCT, or a plan that refers to one, got 2"),
    "two patients": (put("ct_001", PatientID="somebody else"), "files of one patient, got those of 2"),
    "no CT": (remove("ct_*"), "a CT series, got none"),
    "no structures": (remove("structures"), "an RTSTRUCT, got none"),
    "slice a little out of place": (
        put("ct_004", ImagePositionPatient=[-40.0, -35.0, -279.6]),
        r"every 5 mm, got one at z = -279.6 mm, 0.4 mm from its place",
    ),
    "missing slice": (remove("ct_005"), r"every 5 mm, got 10 mm between z = .*; 1 missing"),
    "slice out of place": (shifted_slice, r"every 5 mm, got 6.5 mm between"),
    "slice twice": (second("ct_005"), "one image per slice, got two at z"),
    "same UID at two places": (
        second("ct_005", uid=False, ImagePositionPatient=[0.0, 0.0, 0.0]),
        "SOPInstanceUID of its own",
    ),
    "sheared slices": (sheared, "place and size of the pixels of its series' first slice"),
    "tilted gantry": (put("ct_000", GantryDetectorTilt="12"), "gantry without tilt, got 12 degrees"),
    "oblique slices": (
        every("ct_", change=lambda dataset: setattr(dataset, "ImageOrientationPatient", [1, 0, 0, 0, 0.97, 0.243])),
        "axial images",
    ),
    "slice of another size": (
        put("ct_004", Rows=10, PixelData=bytes(10 * 24 * 2)),
        r"\(1, 20, 24\) pixels .*, got \(1, 10, 24\)",
    ),
    "too many rows": (put("ct_004", Rows=65535, Columns=65535), "1 x 65535 x 65535 by its header"),
    "rows that lie": (every("ct_", change=lambda dataset: setattr(dataset, "Rows", 19)), "are wrong"),
    "pixels cut short": (
        every("ct_", change=lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:400])),
        "it is truncated",
    ),
    "no pixel spacing": (drop("ct_002", "PixelSpacing"), "expected PixelSpacing, got none"),
    "no rescale slope": (drop("ct_002", "RescaleSlope"), "expected RescaleSlope, got none"),
    "infinite rescale slope": (put_raw("ct_002", "RescaleSlope", b"inf"), "finite numbers in RescaleSlope"),
    "color": (put("ct_002", PhotometricInterpretation="RGB", SamplesPerPixel=3), "one MONOCHROME2 sample"),
    "odd bits": (put("ct_002", BitsAllocated=12), "8, 16 or 32 bits"),
    "odd high bit": (put("ct_002", HighBit=3), "HighBit 15"),
    "unknown encoding": (encoded, "can be unpacked here, got 'JPEG 2000"),
    "bomb": (bomb, "at most 536,870,912 bytes of deflated data"),
    "deflated and cut short": (truncated_deflate, "it is truncated"),
    "random bytes": (random_bytes, r"DICM at byte 128"),
    "random bytes behind the magic": (random_after_magic, "transfer syntax|intact DICOM object"),
    "empty file": (empty, r"DICM at byte 128"),
    "header cut short": (cut("ct_003", 0.1), "intact DICOM object|transfer syntax|expected"),
    "deep nesting": (nested, "intact DICOM object"),
    "malformed UID": (put("plan", SOPInstanceUID="../../etc/passwd"), "UID of digits and dots"),
    "contour with NaN": (
        spoil_contour(lambda contour: setattr(contour, "ContourData", ["NaN", *contour.ContourData[1:]])),
        "structure 'PTV70': expected finite numbers in ContourData",
    ),
    "contour with half a point": (
        spoil_contour(lambda contour: setattr(contour, "ContourData", contour.ContourData[:-1])),
        "structure 'PTV70': expected three coordinates per point",
    ),
    "contour out of plane": (
        spoil_contour(
            lambda contour: setattr(
                contour, "ContourData", [*contour.ContourData[:-1], float(contour.ContourData[-1]) + 3.0]
            )
        ),
        "structure 'PTV70': expected contours in axial planes",
    ),
    "prescription in cGy": (
        lambda files: edit(
            files["plan"],
            lambda dataset: setattr(dataset.DoseReferenceSequence[0], "TargetPrescriptionDose", "7000"),
        ),
        "prescription in Gy, got 7000; it looks like cGy",
    ),
}
