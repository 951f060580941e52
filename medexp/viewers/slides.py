"""Images with their predicted masks as pictures to look at: gray PNG, transparent mask PNG, blended frames."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from medexp.errors import CaseError
from medexp.io.tiff import gray_of, read_mask, read_tiff
from medexp.plots.overlays import gray_levels

COLOR = (255, 176, 0)  # of masks: amber is told from gray by everybody
_INSIDE = 110  # opacity of a mask beside its border's 255
_LONGEST = 2000  # pixels of a picture's longer side


@dataclass(frozen=True)
class Slide:
    """An image and the mask to be looked at; `name` is the image's."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, eq=False)
class Picture:
    """A slide's pixels, reduced to what a screen shows."""

    gray: UInt8[np.ndarray, "row column"]
    mask: Bool[np.ndarray, "row column"]

    @classmethod
    def of(cls, slide: Slide, *, longest: int = _LONGEST) -> "Picture":
        """Read a slide.

        Raises:
            CaseError: A file cannot be read, or the two are not of one size.
        """
        image, mask = gray_of(read_tiff(slide.image).array, "mean"), read_mask(slide.mask).array
        if image.shape != mask.shape:
            message = f"{slide.image} and {slide.mask}: expected one size, got {image.shape} and {mask.shape}"
            raise CaseError(f"{message}; predict the image again, or correct the mask")
        step = max(1, -(-max(image.shape) // longest))
        return cls(gray_levels(image)[::step, ::step], mask[::step, ::step] > 0)

    @property
    def border(self) -> Bool[np.ndarray, "row column"]:
        """The mask's pixels that lie at its edge."""
        return self.mask & ~ndimage.binary_erosion(self.mask, np.ones((3, 3), bool), iterations=2)

    def image_png(self) -> bytes:
        """Return the image."""
        return _png(self.gray)

    def mask_png(self) -> bytes:
        """Return the mask as a picture that lets the image through."""
        rgba = np.zeros((*self.mask.shape, 4), np.uint8)
        rgba[..., :3] = COLOR
        rgba[..., 3] = np.where(self.border, 255, np.where(self.mask, _INSIDE, 0))
        return _png(rgba)

    def blended(self, alpha: float) -> UInt8[np.ndarray, "row column 3"]:
        """Return image and mask mixed; the border is drawn in full."""
        weight = np.where(self.border, 1.0, np.where(self.mask, alpha * _INSIDE / 255.0, 0.0))[..., None]
        mixed = self.gray[..., None] * (1.0 - weight) + np.array(COLOR) * weight
        return np.rint(mixed).astype(np.uint8)


def slides_of(masks: Mapping[str, Path], images: Mapping[str, Path]) -> list[Slide]:
    """Return a slide per mask, sorted by name.

    Raises:
        CaseError: Masks have no image; all are listed.
    """
    without = sorted(set(masks) - set(images))
    if without:
        listing = "".join(f"\n  {name}" for name in without)
        raise CaseError(f"view.images: expected an image of every mask, {len(without)} have none:{listing}")
    return [Slide(name, images[name], masks[name]) for name in sorted(masks)]


def _png(pixels: UInt8[np.ndarray, "..."]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
