"""NIfTI files as arrays with a trusted geometry.

Common readers accept what must not pass: a file without an orientation gets an invented one, an infinite slope is
ignored, a zero voxel size becomes 1, and a few megabytes may unpack to many gigabytes. Here a header is judged before
any voxel is unpacked, and no more is unpacked than it promises.
"""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Num

from medexp.errors import CaseError
from medexp.geometry.affine import Shape, corner_distance_mm, spacing_mm
from medexp.geometry.grids import Grid
from medexp.io.nifti_header import HeaderError, RawHeader, header_for
from medexp.runs.files import atomic_write

MAX_BYTES = 2 << 30  # of one volume's voxels
_SLACK_BYTES = 1 << 20  # trailing bytes that are forgiven; more is a file that holds what its header hides
_HEADER_BYTES = 1024  # both versions fit
_MAX_OFFSET = 64 << 20
_FORMS_AGREE_MM = 0.1
_USUAL_MM = (0.05, 20.0)
_MILLIMETER_CODES = {0, 2}  # not said, mm


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a file says about its voxels, after all rules held.

    `affine` is the s-form if its code is set, else the q-form. `slope` and `intercept` are 1 and 0 where the
    file does not scale. `raw` is the header as stored. `warnings` name what is odd but usable.
    """

    shape: Shape
    affine: Float64[np.ndarray, "4 4"]
    dtype: np.dtype
    slope: float
    intercept: float
    offset: int
    raw: bytes
    warnings: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """The size of the voxel data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Volume:
    """A file's voxels in the file's own axis order, with scaling applied."""

    array: Num[np.ndarray, "i j k"]
    header: NiftiHeader

    @property
    def grid(self) -> Grid:
        """The file's grid, turned to RAS+ and not cropped."""
        return Grid.native(self.header.shape, self.header.affine, self.header.raw)


@dataclass(frozen=True, eq=False)
class RawFile:
    """A file's bytes as they are on the disk."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        """The hash of the bytes on the disk."""
        return hashlib.sha256(self.content).hexdigest()


def read_file(path: Path) -> RawFile:
    """Read a file's bytes.

    Raises:
        CaseError: It cannot be opened, or is larger than any volume may be.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES + _MAX_OFFSET:
            raise CaseError(f"{path}: expected at most {MAX_BYTES:,} bytes, got {size:,}")
        return RawFile(path, path.read_bytes())
    except OSError as error:
        raise CaseError(f"{path}: expected a readable file, got '{error.strerror}'") from error


def read_header(path: Path) -> NiftiHeader:
    """Read and judge a file's header; the voxels stay untouched.

    Raises:
        CaseError: The file is no usable NIfTI volume; the message names file and reason.
    """
    try:
        with path.open("rb") as stream:
            beginning = stream.read(64 * _HEADER_BYTES)
    except OSError as error:
        raise CaseError(f"{path}: expected a readable file, got '{error.strerror}'") from error
    return header_of(RawFile(path, beginning))


def read_volume(path: Path) -> Volume:
    """Read a file.

    Raises:
        CaseError: The file is no usable NIfTI volume; the message names file and reason.
    """
    return decode(read_file(path))


def header_of(file: RawFile) -> NiftiHeader:
    """Judge the header at the beginning of a file's bytes.

    Raises:
        CaseError: A rule is broken.
    """
    try:
        return _judged(_unpacked(file, _HEADER_BYTES, whole=False))
    except HeaderError as error:
        raise CaseError(f"{file.path}: {error}") from error


def decode(file: RawFile) -> Volume:
    """Return the volume in a file's bytes.

    Raises:
        CaseError: The header breaks a rule, or the voxels are not all there.
    """
    header = header_of(file)
    expected = header.offset + header.num_bytes
    try:
        data = _unpacked(file, expected + _SLACK_BYTES, whole=True)
        if len(data) < expected:
            raise HeaderError(f"expected {expected:,} bytes by its header, got {len(data):,}: it is truncated")
    except HeaderError as error:
        raise CaseError(f"{file.path}: {error}") from error
    voxels = np.frombuffer(data, header.dtype, count=math.prod(header.shape), offset=header.offset)
    return Volume(_scaled(voxels.reshape(header.shape, order="F"), header), header)


def _unpacked(file: RawFile, limit: int, *, whole: bool) -> bytes:
    """Return the unpacked bytes, of a packed file at most `limit`; `whole` asks for the end to be there."""
    content = file.content
    if not content:
        raise HeaderError("expected a NIfTI volume, got an empty file")
    if file.path.suffix != ".gz":
        if whole and len(content) > limit:
            raise HeaderError(f"expected at most {limit:,} bytes by its header, got {len(content):,}")
        return content
    if content[:2] != b"\x1f\x8b":
        raise HeaderError("expected gzip data as the name says, got something else")
    parts: list[bytes] = []
    size = 0
    while content[:2] == b"\x1f\x8b" and size < limit:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpacker.decompress(content, limit - size))
        except zlib.error as error:
            raise HeaderError(f"expected intact gzip data, got '{error}'") from error
        size += len(parts[-1])
        if not whole:
            break
        if not unpacker.eof:
            state = "more than its header says" if size >= limit else f"{size:,} bytes and no end: it is truncated"
            raise HeaderError(f"expected gzip data that end after the voxels, got {state}")
        content = unpacker.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _judged(data: bytes) -> NiftiHeader:
    header = RawHeader.of(data)
    shape = _shape(header)
    dtype = header.dtype
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > MAX_BYTES:
        raise HeaderError(f"expected a volume of at most {MAX_BYTES:,} bytes, got {shape} = {num_bytes:,} bytes")
    offset = header.value("vox_offset")
    if not header.least_offset <= offset <= _MAX_OFFSET or offset != int(offset):
        raise HeaderError(f"expected voxels to start at byte {header.least_offset} or later, got {offset}")
    slope, intercept = _scaling(header)
    affine, warnings = _geometry(header, shape)
    return NiftiHeader(shape, affine, dtype, slope, intercept, int(offset), header.content, warnings)


def _shape(header: RawHeader) -> Shape:
    num_axes, *sizes = (int(value) for value in header.values("dim"))
    if not 1 <= num_axes <= 7:
        raise HeaderError(f"expected three dimensions, got {num_axes}")
    shape = sizes[:num_axes]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 1:
        raise HeaderError(f"expected a 3-D volume, got dimensions {tuple(shape)}; write one file per channel")
    if 1 in shape:
        raise HeaderError(f"expected a 3-D volume, got the single slice {tuple(shape)}")
    return (shape[0], shape[1], shape[2])


def _scaling(header: RawHeader) -> tuple[float, float]:
    slope, intercept = header.value("scl_slope"), header.value("scl_inter")
    if slope == 0.0 or math.isnan(slope):  # the standard's way, and a common one, to say "not scaled"
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise HeaderError(f"expected a finite scaling, got slope {slope} and intercept {intercept}")
    return slope, intercept


def _geometry(header: RawHeader, shape: Shape) -> tuple[Float64[np.ndarray, "4 4"], tuple[str, ...]]:
    sizes = tuple(float(value) for value in header.values("pixdim")[1:4])
    if not all(math.isfinite(size) and size > 0.0 for size in sizes):
        raise HeaderError(f"expected positive voxel sizes, got pixdim {sizes}")
    unit = int(header.value("xyzt_units")) & 7
    if unit not in _MILLIMETER_CODES:
        raise HeaderError(f"expected millimeters, got the spatial unit with code {unit}")
    has_s, has_q = header.value("sform_code") > 0, header.value("qform_code") > 0
    if not (has_s or has_q):
        raise HeaderError("expected an orientation, got neither s-form nor q-form (both codes are 0)")
    affine = _checked(header.s_form(), "s-form") if has_s else _checked(header.q_form(), "q-form")
    warnings = []
    if has_s and has_q:
        apart = corner_distance_mm(affine, _checked(header.q_form(), "q-form"), shape)
        if apart > _FORMS_AGREE_MM:
            warnings.append(f"s-form and q-form put the corners up to {apart:.3g} mm apart; the s-form is used")
    return affine, (*warnings, *_oddities(affine))


def _checked(matrix: Float64[np.ndarray, "4 4"], name: str) -> Float64[np.ndarray, "4 4"]:
    if not np.isfinite(matrix).all():
        raise HeaderError(f"expected a finite {name}, got NaN or infinity")
    columns = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    if columns.min() < 1e-6 or abs(np.linalg.det(matrix[:3, :3] / columns)) < 1e-3:
        raise HeaderError(f"expected a {name} that can be inverted, got {matrix[:3].round(4).tolist()}")
    return matrix


def _oddities(affine: Float64[np.ndarray, "4 4"]) -> list[str]:
    size = spacing_mm(affine)
    directions = affine[:3, :3] / np.array(size)
    found = []
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        found.append("the axes are not at right angles")
    if min(size) < _USUAL_MM[0] or max(size) > _USUAL_MM[1]:
        found.append(f"the voxel size {tuple(round(value, 4) for value in size)} mm is unusual")
    return found


def _scaled(voxels: Num[np.ndarray, "i j k"], header: NiftiHeader) -> Num[np.ndarray, "i j k"]:
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return native
    return (native.astype(np.float64) * header.slope + header.intercept).astype(np.float32)


def write_nifti(path: Path, array: Num[np.ndarray, "i j k"], grid: Grid, *, durable: bool = True) -> None:
    """Write an array on the file grid of `grid`, with the source's header where there is one.

    The data type and the shape are the array's; geometry, units and description are the source's. Equal
    arrays give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    content = _packed(array, grid)
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_bytes(gzip.compress(content, 3, mtime=0) if path.suffix == ".gz" else content)


def _packed(array: Num[np.ndarray, "i j k"], grid: Grid) -> bytes:
    like = None if grid.header is None else RawHeader.of(grid.header)
    header = header_for(array.dtype, grid.affine, like=like, shape=array.shape)
    voxels = array.astype(header.dtype, copy=False).tobytes(order="F")
    return header.content + bytes(4) + voxels  # no extensions


def reader_versions() -> dict[str, str]:
    """Return the versions of the libraries that turn bytes into voxels; they belong to a store entry's key."""
    return {"numpy": np.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION}
