"""TIFF files as images: what is bright on the screen is large, whatever the file stores, and one rule makes grey.

A header is judged before any pixel is unpacked: how large the image would be, whether every strip lies within the
file, whether there is one image. Where the tag says WhiteIsZero, stored values are turned round.
"""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, Num, Shaped, UInt8

from medexp.errors import CaseError, StorageError
from medexp.io.nifti import RawFile, read_file
from medexp.runs.files import atomic_write

Gray = Literal["mean", "luminance", "first"]

MAX_BYTES = 1 << 30  # of one unpacked image
EXTENSIONS = (".tif", ".tiff")
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_DESCRIPTION_CHARACTERS = 1 << 20
_UNITS_UM = {"µm": 1.0, "um": 1.0, "μm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_MAX_PAGES = 16  # previews and pyramids that are looked at


@dataclass(frozen=True)
class TiffHeader:
    """What a file says about its one image, after all rules held.

    `shape` is height and width. `bits` are those of a sample. `pixel_size_um` is height and width of a pixel,
    None where the file does not say. `white_is_zero` tells that stored values are turned round.
    """

    shape: tuple[int, int]
    samples: int
    bits: int
    dtype: np.dtype
    white_is_zero: bool
    pixel_size_um: tuple[float, float] | None
    warnings: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """The size of the unpacked pixels."""
        return self.shape[0] * self.shape[1] * self.samples * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class TiffImage:
    """A file's pixels, bright is large; `array` has a last axis of colors where the file has colors."""

    array: Shaped[np.ndarray, "height width *color"]
    header: TiffHeader


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A mask: 1 is object, and what is to be said about the file."""

    array: UInt8[np.ndarray, "height width"]
    header: TiffHeader
    warnings: tuple[str, ...]


class TiffError(ValueError):
    """A file breaks a rule; the caller adds its name."""


def read_tiff(path: Path) -> TiffImage:
    """Read a file.

    Raises:
        CaseError: The file is no usable TIFF image; the message names file and reason.
    """
    return decode_tiff(read_file(path))


def read_tiff_header(path: Path) -> TiffHeader:
    """Read and judge a file's header; the pixels stay where they are.

    Raises:
        CaseError: The file is no usable TIFF image; the message names file and reason.
    """
    try:
        with path.open("rb") as stream, _opened(stream) as file:
            return _judged(file, path.stat().st_size)[0]
    except (OSError, TiffError) as error:
        raise _refusal(path, error) from error


def decode_tiff(file: RawFile) -> TiffImage:
    """Return the image in a file's bytes.

    Raises:
        CaseError: The header breaks a rule, or the pixels are not all there.
    """
    try:
        with _opened(io.BytesIO(file.content)) as opened:
            header, page = _judged(opened, len(file.content))
            return TiffImage(_pixels(page, header), header)
    except TiffError as error:
        raise _refusal(file.path, error) from error


def read_mask(path: Path) -> MaskImage:
    """Read a mask.

    Raises:
        CaseError: The file is no usable TIFF image, or holds more than two values.
    """
    return mask_of(decode_tiff(read_file(path)), path)


def mask_of(image: TiffImage, path: Path) -> MaskImage:
    """Return the mask that an image holds: its larger value is object; one value alone is 0 or object throughout.

    Raises:
        CaseError: It holds more than two values, or colors that differ.
    """
    array = image.array
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise CaseError(f"{path}: expected a mask of two values, got colors; save it as one gray channel")
        array = array[..., 0]
    lowest, highest = array.min(), array.max()
    between = (array != lowest) & (array != highest)
    if between.any():
        values = [f"{value:g}" for value in np.unique(array)[:8].tolist()]
        message = f"{path}: expected a mask of two values, 0 and 255, got {', '.join(values)}"
        raise CaseError(f"{message}{' and more' if len(values) == 8 else ''}; threshold it, or save it without loss")
    if lowest != highest and lowest != 0:
        raise CaseError(f"{path}: expected 0 as background, got the values {lowest:g} and {highest:g}; write 0 and 255")
    told = ("stored as WhiteIsZero: stored zeros are white and count as object",) if image.header.white_is_zero else ()
    return MaskImage((array != 0).astype(np.uint8), image.header, (*image.header.warnings, *told))


def gray_of(array: Shaped[np.ndarray, "height width *color"], rule: Gray) -> Shaped[np.ndarray, "height width"]:
    """Return one value per pixel of the array's own type: colors by the rule, what is gray already as it is.

    Raises:
        ValueError: No such rule.
    """
    if rule not in get_args(Gray):
        raise ValueError(f"expected one of {get_args(Gray)}, got {rule!r}")
    if array.ndim == 2:
        return array
    if rule == "first":
        return array[..., 0]
    weights = np.array(_LUMINANCE if rule == "luminance" else (1 / 3,) * 3, np.float64)
    mixed = array[..., :3].astype(np.float64) @ weights
    return (np.rint(mixed) if array.dtype.kind in "iu" else mixed).astype(array.dtype)


def write_mask_tiff(
    path: Path,
    mask: UInt8[np.ndarray, "height width"],
    *,
    pixel_size_um: tuple[float, float] | None = None,
    durable: bool = True,
) -> None:
    """Write 0 and 255, BlackIsZero, LZW; what is not 0 becomes 255.

    Raises:
        StorageError: The file cannot be written.
    """
    pixels = np.where(mask != 0, np.uint8(255), np.uint8(0))
    write_tiff(path, pixels, pixel_size_um=pixel_size_um, durable=durable)


def write_tiff(
    path: Path,
    array: Num[np.ndarray, "height width *color"] | Float32[np.ndarray, "height width"],
    *,
    pixel_size_um: tuple[float, float] | None = None,
    compression: str | None = "lzw",
    durable: bool = True,
) -> None:
    """Write one image; equal arrays give equal bytes. The pixel size goes where OME keeps it.

    Raises:
        StorageError: The file cannot be written.
    """
    import tifffile

    options: dict[str, Any] = {"photometric": "rgb" if array.ndim == 3 else "minisblack", "compression": compression}
    if pixel_size_um is not None:
        options["description"] = _ome(array, pixel_size_um)
    with atomic_write(path, durable=durable) as temporary:
        try:
            tifffile.imwrite(temporary, array, metadata=None, software="medexp", **options)
        except ValueError as error:  # more than 4 GiB without BigTIFF
            raise StorageError(f"{path}: expected an image that fits into a TIFF file, got '{error}'") from error


def reader_versions() -> dict[str, str]:
    """Return the versions of the libraries that turn bytes into pixels; they belong to a store entry's key."""
    import imagecodecs
    import tifffile

    return {"numpy": np.__version__, "tifffile": tifffile.__version__, "imagecodecs": imagecodecs.__version__}


def _refusal(path: Path, error: Exception) -> CaseError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return CaseError(f"{path}: {reason}" if isinstance(error, TiffError) else f"{path}: expected TIFF, got '{reason}'")


@contextmanager
def _opened(stream: Any) -> Iterator[Any]:
    """Open a file, turning whatever a damaged one provokes into a reason."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs where medexp raises
    try:
        with tifffile.TiffFile(stream) as file:
            yield file
    except TiffError:
        raise
    except MemoryError as error:
        raise TiffError(f"expected an image that fits into memory, got one that does not ({error})") from error
    except Exception as error:
        reason = (str(error) or repr(error)).splitlines()[0][:200]
        raise TiffError(f"expected an intact TIFF image, got '{reason}'") from error


def _judged(file: Any, size: int) -> tuple[TiffHeader, Any]:
    page = _only_page(file)
    height, width = int(page.imagelength), int(page.imagewidth)
    samples, bits = int(page.samplesperpixel), page.bitspersample
    if height < 1 or width < 1:
        raise TiffError(f"expected an image, got {height} x {width} pixels")
    if page.imagedepth != 1:
        raise TiffError(f"expected a plane, got {page.imagedepth} of them; write one file per image")
    dtype = np.dtype(bool) if bits == 1 else page.dtype
    if dtype is None or dtype.kind not in "biuf" or isinstance(bits, tuple):
        raise TiffError(f"expected samples of 1, 8, 16 or 32 bits, got {bits}")
    header = TiffHeader(
        (height, width),
        samples,
        int(bits),
        np.dtype(dtype),
        int(page.photometric) == _WHITE_IS_ZERO,
        _pixel_size_um(file, page),
        _warnings(page),
    )
    if header.num_bytes > MAX_BYTES:
        raise TiffError(f"expected at most {MAX_BYTES:,} bytes, got {height} x {width} = {header.num_bytes:,} bytes")
    _require_kind(page, samples)
    _require_segments(page, size)
    return header, page


def _only_page(file: Any) -> Any:
    """Return the image; reduced copies of it (previews, pyramids) are passed over."""
    first = file.pages[0]
    for number in range(1, _MAX_PAGES):
        try:
            page = file.pages[number]
        except IndexError:
            return first
        if not (page.is_reduced or page.is_mask) and (page.imagelength, page.imagewidth) == (
            first.imagelength,
            first.imagewidth,
        ):
            raise TiffError("expected one image, got several pages; write one file per image")
    raise TiffError(f"expected one image and a few previews, got {_MAX_PAGES} pages or more")


def _require_kind(page: Any, samples: int) -> None:
    photometric = int(page.photometric)
    if photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR}:
        name = getattr(page.photometric, "name", page.photometric)
        raise TiffError(f"expected gray, palette or RGB, got the photometric interpretation {name}; convert it to gray")
    colors = 3 if photometric in {_RGB, _YCBCR} else 1
    if not colors <= samples <= colors + 1:
        raise TiffError(f"expected {colors} samples per pixel and perhaps alpha, got {samples}; write one image")


def _require_segments(page: Any, size: int) -> None:
    """Refuse a file whose strips or tiles do not all lie within it: readers fill what is missing with zeros."""
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = int(np.prod(page.chunked)) if page.chunked else 1
    if len(offsets) != len(counts) or len(offsets) < max(1, expected):
        raise TiffError(f"expected {max(1, expected)} strips or tiles, got {min(len(offsets), len(counts))}")
    for offset, count in zip(offsets, counts, strict=True):
        if count <= 0 or offset <= 0 or offset + count > size:
            raise TiffError(
                f"expected {size:,} bytes to hold the pixels, got a strip that ends beyond: it is truncated"
            )


def _pixels(page: Any, header: TiffHeader) -> Shaped[np.ndarray, "..."]:
    array = np.asarray(page.asarray(maxworkers=1))
    photometric = int(page.photometric)
    if int(page.planarconfig) == 2 and array.ndim == 3:  # planes one after another
        array = np.moveaxis(array, 0, -1)
    if photometric == _PALETTE:
        colors = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # written as 255 * 257 or as 255 * 256
        array = np.moveaxis(colors[:, array.reshape(header.shape).astype(np.intp)], 0, -1)
    elif photometric in {_RGB, _YCBCR}:
        array = array.reshape(*header.shape, header.samples)[..., :3]
    else:
        array = array.reshape(*header.shape, header.samples)[..., 0]
    return _turned(array, header) if header.white_is_zero else array


def _turned(array: Shaped[np.ndarray, "height width"], header: TiffHeader) -> Shaped[np.ndarray, "height width"]:
    if array.dtype.kind == "b":
        return np.logical_not(array)
    if array.dtype.kind == "u":
        largest = (1 << header.bits) - 1
        return (largest - array.astype(np.int64)).astype(array.dtype)
    return array.max() - array


def _warnings(page: Any) -> tuple[str, ...]:
    colors = 3 if int(page.photometric) in {_RGB, _YCBCR} else 1
    return ("an alpha channel is left out",) if page.samplesperpixel > colors else ()


def _pixel_size_um(file: Any, page: Any) -> tuple[float, float] | None:
    """Return what OME or ImageJ metadata say; a printer's resolution says nothing about a microscope."""
    description = str(page.description or "")[:_DESCRIPTION_CHARACTERS]
    if "<OME" in description:
        sizes = [_ome_size(description, axis) for axis in ("Y", "X")]
        return (sizes[0], sizes[1]) if sizes[0] and sizes[1] else None
    if file.is_imagej:
        unit = re.search(r"^unit=(.+)$", description, re.MULTILINE)
        name = unit.group(1).strip().replace("\\u00B5", "µ") if unit else ""
        scale = _UNITS_UM.get(name)
        steps = [_per_pixel(page.tags.get(tag)) for tag in ("YResolution", "XResolution")]
        if scale is not None and steps[0] and steps[1]:
            return steps[0] * scale, steps[1] * scale
    return None


def _ome_size(description: str, axis: str) -> float | None:
    size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', description)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', description)
    scale = _UNITS_UM.get(unit.group(1).replace("&#181;", "µ")) if unit else 1.0
    try:
        value = float(size.group(1)) * scale if size and scale else None
    except ValueError:
        return None
    return value if value is not None and 0.0 < value < 1e6 else None


def _per_pixel(tag: Any) -> float | None:
    if tag is None or not tag.value[0]:
        return None
    return float(tag.value[1] / tag.value[0])


def _ome(array: np.ndarray, pixel_size_um: tuple[float, float]) -> str:
    height, width = array.shape[:2]
    kind = {"u": f"uint{8 * array.dtype.itemsize}", "f": "float"}[array.dtype.kind]
    samples = array.shape[2] if array.ndim == 3 else 1
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{kind}" SizeX="{width}" '
        f'SizeY="{height}" SizeC="{samples}" SizeZ="1" SizeT="1" PhysicalSizeX="{pixel_size_um[1]!r}" '
        f'PhysicalSizeXUnit="um" PhysicalSizeY="{pixel_size_um[0]!r}" PhysicalSizeYUnit="um">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="{samples}"/><TiffData/></Pixels></Image></OME>'
    )
