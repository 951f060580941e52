"""`.npz` files that may be hostile: judged by their headers, read key by key, never unpickled.

`numpy.load` believes a header's shape before it has seen the data, and unpacks whatever a member holds. Here a member's
header, its size in the archive and a budget must agree before memory is taken, and its checksum must hold.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medexp.errors import CaseError
from medexp.runs.files import atomic_write

MAX_BYTES = 8 << 30  # of one array
_MAX_MEMBERS = 1024
_MAX_HEADER_BYTES = 16 << 10
_ENDING = ".npy"
_CHUNK_BYTES = 1 << 20
_LEVEL = 1  # masks and saturated distances shrink as much as they ever will, at several times the speed of level 6
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_PLAIN_KINDS = "biufUS"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class ArrayHeader:
    """What a member says about its array before any of it is unpacked; `is_pickled`: it can only be unpickled."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    @property
    def is_pickled(self) -> bool:
        """Whether the array holds Python objects."""
        return bool(self.dtype.hasobject)

    @property
    def num_bytes(self) -> int:
        """The size of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the header of every array by its key.

    Raises:
        CaseError: The file is no npz, or a header is not believable; names file and key.
    """
    with _opened(path) as members:
        return {key: _header(members, key)[0] for key in members.infos}


def read_keys(path: Path, keys: Iterable[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the arrays of some keys; the others are not unpacked.

    Args:
        path: The file.
        keys: Each must be there.
        max_bytes: Of each array.

    Raises:
        CaseError: A key is missing, pickled, larger than it may be or damaged; names file and key.
    """
    with _opened(path) as members:
        return {key: _array(members, key, max_bytes) for key in keys}


def write_npz(path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]], *, durable: bool = True) -> None:
    """Write the arrays; `numpy.load(path, allow_pickle=False)` reads them too. Equal arrays give equal bytes.

    Raises:
        StorageError: The file cannot be written.
        ValueError: An array holds Python objects.
    """
    with atomic_write(path, durable=durable) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, array in arrays.items():
            with archive.open(_member(key), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _member(key: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{key}{_ENDING}")  # dated 1980: no clock in the bytes
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    # It has no public name before Python 3.13, and an opened member takes no level from its archive.
    member._compresslevel = _LEVEL  # type: ignore[attr-defined]
    return member


@dataclass(frozen=True)
class _Members:
    path: Path
    archive: zipfile.ZipFile
    infos: Mapping[str, zipfile.ZipInfo]


@contextmanager
def _opened(path: Path) -> Iterator[_Members]:
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CaseError(f"{path}: expected an npz archive, got '{reason}'; it may be truncated") from error
    with archive:
        yield _Members(path, archive, _judged(path, archive.infolist()))


def _judged(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > _MAX_MEMBERS:
        raise CaseError(f"{path}: expected at most {_MAX_MEMBERS} arrays, got {len(infos):,} members")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        key = info.filename.removesuffix(_ENDING)
        if key == info.filename or not key.isidentifier():
            raise CaseError(f"{path}: expected members such as 'ct.npy', got {info.filename[:60]!r}")
        if key in found:
            raise CaseError(f"{path}: {key}: expected one array of this name, got two")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise CaseError(
                f"{path}: {key}: expected a stored or deflated array, got one encrypted or packed otherwise"
            )
        found[key] = info
    return found


def _header(members: _Members, key: str) -> tuple[ArrayHeader, int]:
    """Return a member's header and its length in bytes."""
    try:
        with members.archive.open(members.infos[key]) as stream:
            beginning = io.BytesIO(stream.read(_MAX_HEADER_BYTES))  # a header may claim a length of gigabytes
            return _parsed(beginning), beginning.tell()
    except _BROKEN as error:
        raise CaseError(f"{members.path}: {key}: expected an array's header, got '{error}'") from error


def _parsed(stream: io.BytesIO) -> ArrayHeader:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the npy format")
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape {shape}")
    return ArrayHeader(tuple(shape), dtype, is_fortran)


def _array(members: _Members, key: str, max_bytes: int) -> Shaped[np.ndarray, "..."]:
    if key not in members.infos:
        present = ", ".join(members.infos) or "nothing"
        raise CaseError(f"{members.path}: expected the key {key!r}, got {present}")
    header, offset = _header(members, key)
    _require_believable(members, key, header, offset, max_bytes)
    flat = np.empty(math.prod(header.shape), header.dtype)
    try:
        with members.archive.open(members.infos[key]) as stream:
            stream.read(offset)
            _fill(flat, stream.read)
    except _BROKEN as error:
        raise CaseError(f"{members.path}: {key}: expected intact data, got '{error}'") from error
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8) != 0  # bytes that are neither 0 nor 1 would be two kinds of true
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return native.reshape(header.shape, order="F" if header.is_fortran else "C")


def _require_believable(members: _Members, key: str, header: ArrayHeader, offset: int, max_bytes: int) -> None:
    place = f"{members.path}: {key}"
    if header.is_pickled:
        message = "expected plain numbers, got pickled Python objects, which are never loaded"
        raise CaseError(f"{place}: {message}; write the array again with a numeric dtype")
    if header.dtype.kind not in _PLAIN_KINDS:
        raise CaseError(f"{place}: expected numbers or text, got the dtype {header.dtype}")
    stored = members.infos[key].file_size - offset
    if header.num_bytes != stored:
        message = f"expected {header.num_bytes:,} bytes by its header ({header.dtype}, {header.shape}), got {stored:,}"
        raise CaseError(f"{place}: {message}: the header does not fit the data")
    if header.num_bytes > max_bytes:
        raise CaseError(f"{place}: expected at most {max_bytes:,} bytes, got {header.num_bytes:,}")


def _fill(flat: Shaped[np.ndarray, " value"], read: Callable[[int], bytes]) -> None:
    """Read the array's bytes in pieces and the end after them, where the checksum is compared."""
    target = flat.view(np.uint8) if flat.size else np.empty(0, np.uint8)
    done = 0
    while done < target.size:
        piece = read(min(_CHUNK_BYTES, target.size - done))
        if not piece:
            raise EOFError(f"{target.size - done:,} bytes fewer than its header says")
        target[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    if read(1):
        raise ValueError("more bytes than its header says")
