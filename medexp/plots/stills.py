"""One image with outlines, as pieces of SVG: a gray picture and one path per label (see `medexp.plots.slices`)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer, Num

from medexp.plots.overlays import data_uri, encode_png, gray_levels, shrink
from medexp.plots.slices import INSIDE, ON_THE_EDGE, Outline, outline_path

_LONGEST = 1000  # pixels of the picture's longer side; outlines stay exact


@dataclass(frozen=True)
class Still:
    """A picture of one image. `picture` is the `href` of a PNG, empty where there is no image; sizes in pixels."""

    size: tuple[float, float]
    picture: str
    reference: tuple[Outline, ...]
    prediction: tuple[Outline, ...]
    caption: str
    letters: tuple[str, ...] = ()


def still(
    *,
    reference: Integer[np.ndarray, "row column"] | Bool[np.ndarray, "row column"],
    prediction: Integer[np.ndarray, "row column"] | Bool[np.ndarray, "row column"],
    image: Num[np.ndarray, "row column"] | None,
    caption: str,
) -> Still:
    """Return an image with the outlines of its two label maps."""
    height, width = reference.shape
    return Still(
        size=(float(width), float(height)),
        picture="" if image is None else picture_of(image),
        reference=_outlines(reference, ON_THE_EDGE),
        prediction=_outlines(prediction, INSIDE),
        caption=caption,
    )


def picture_of(image: Num[np.ndarray, "row column"], longest: int = _LONGEST) -> str:
    """Return an image as the `href` of a gray PNG."""
    gray = gray_levels(shrink(image, longest))
    return data_uri(encode_png(np.repeat(gray[..., None], 3, axis=2)))


def _outlines(
    labels: Integer[np.ndarray, "row column"] | Bool[np.ndarray, "row column"], level: float
) -> tuple[Outline, ...]:
    values = np.unique(labels)
    return tuple(Outline(int(value), outline_path(labels == value, (1.0, 1.0), level)) for value in values if value)
