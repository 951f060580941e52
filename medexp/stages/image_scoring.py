"""Read the label maps of an image and score or measure them; runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num

from medexp.errors import CaseError
from medexp.io.nifti import RawFile, read_file
from medexp.io.tiff import EXTENSIONS, decode_tiff, gray_of, mask_of, read_tiff_header
from medexp.metrics.grids import mask_of as pixels_of
from medexp.metrics.object_labels import objects_of
from medexp.metrics.object_scores import ObjectScores, ObjectScoring, score_objects
from medexp.metrics.objects import ObjectMeasures, measure_objects, square_side_um
from medexp.stages.outcomes import Refused


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """The label map of one image as its file holds it, and what the file says about its pixels."""

    array: Num[np.ndarray, "row column"]
    file: RawFile
    pixel_size_um: tuple[float, float] | None


@dataclass(frozen=True)
class PredictedImage:
    """A predicted label map that has no reference; `sha256` and `images` as in `medexp.io.pairing.Pair`."""

    case: str
    path: Path
    sha256: str | None = None
    images: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class MeasuredImage:
    """The objects of one mask, by label or region, with the digest of its file."""

    case: str
    path: Path
    sha256: str
    shape: tuple[int, ...]
    pixel_size_um: float | None
    objects: Mapping[str, ObjectMeasures]


def is_image(path: Path) -> bool:
    """Say whether a file is a 2D image by its name."""
    return path.name.lower().endswith(EXTENSIONS)


def read_image_labels(path: Path, values: Mapping[str, int]) -> ImageLabels:
    """Read a label map. Where the only label is 1, the file is a mask of two values, whatever they are.

    Raises:
        CaseError: The file cannot be read, is no mask, or holds other values; the message names it.
    """
    file = read_file(path)
    image = decode_tiff(file)
    is_binary = list(values.values()) == [1]
    array = mask_of(image, path).array if is_binary else gray_of(image.array, "first")
    return ImageLabels(array, file, image.header.pixel_size_um)


def pixel_side_um(
    configured: float | int | None, labels: list[ImageLabels], images: tuple[tuple[str, Path], ...]
) -> float | None:
    """Return the side of a pixel: as configured, else as the first file says that says it, label maps first.

    Raises:
        CaseError: The pixels are not square.
    """
    if configured is not None:
        return square_side_um(configured)
    told = next((one.pixel_size_um for one in labels if one.pixel_size_um is not None), None)
    for _, path in images if told is None else ():
        if is_image(path) and path.is_file():
            told = told or read_tiff_header(path).pixel_size_um
    return square_side_um(told)


def score_image_objects(
    arrays: tuple[Num[np.ndarray, "row column"], Num[np.ndarray, "row column"]],
    structures: Mapping[str, tuple[int, ...]],
    scoring: ObjectScoring,
    pixel_size_um: float | None,
) -> dict[str, ObjectScores]:
    """Return the objects of each label and region."""
    prediction, reference = arrays
    return {
        name: score_objects(pixels_of(prediction, values), pixels_of(reference, values), scoring, pixel_size_um)
        for name, values in structures.items()
    }


def measure_image(
    image: PredictedImage,
    labels: Mapping[str, int],
    structures: Mapping[str, tuple[int, ...]],
    scoring: ObjectScoring,
) -> MeasuredImage | Refused:
    """Read and measure a prediction; what is wrong with it is returned, so that all bad ones can be listed."""
    try:
        if not is_image(image.path):
            kinds = ", ".join(EXTENSIONS)
            raise CaseError(f"{image.path}: expected an image ({kinds}) to measure objects of, got another format")
        read = read_image_labels(image.path, labels)
        if image.sha256 is not None and image.sha256 != read.file.sha256:
            raise CaseError(f"{image.path}: expected sha256 {image.sha256} as recorded, got {read.file.sha256}")
        side_um = pixel_side_um(scoring.pixel_size_um, [read], image.images)
        objects = {
            name: measure_objects(objects_of(pixels_of(read.array, values), scoring.rule), side_um)
            for name, values in structures.items()
        }
    except CaseError as error:
        return Refused(image.case, (str(error),))
    return MeasuredImage(image.case, image.path, read.file.sha256, read.array.shape, side_um, objects)
