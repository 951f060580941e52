"""OpenKBP's sparse CSV: a header `,data`, then a flat index and a value per voxel, or an index alone for a mask.

Every row is judged before anything is converted, so that a damaged file is refused with its line instead of being read
as something else.
"""

import re

import numpy as np
from jaxtyping import Float64, Int64

from medexp.errors import CaseError
from medexp.io.nifti import RawFile

MAX_BYTES = 128 << 20  # 128^3 rows of the longest values that a program writes
_HEADER = b",data\n"
_INDEX = rb"[0-9]{1,9}"
_NUMBER = rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
# The first line that is none of the format's; an empty one counts, the end of the file does not.
_NO_ROW = re.compile(rb"^(?!" + _INDEX + rb"," + _NUMBER + rb"$)(?=[\s\S])", re.MULTILINE)
_NO_INDEX = re.compile(rb"^(?!" + _INDEX + rb",$)(?=[\s\S])", re.MULTILINE)
_NO_SIZE = re.compile(rb"^(?!" + _NUMBER + rb"$)(?=[\s\S])", re.MULTILINE)
_SHOWN = 40  # bytes of a bad line


def values_of(file: RawFile, *, num_voxels: int) -> tuple[Int64[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
    """Return the indices and values of a file of doses or intensities.

    Raises:
        CaseError: A line is no row of two numbers, an index is outside or comes twice; names file and line.
    """
    body = _body(file)
    _require_rows(file, body, _NO_ROW, expected="an index and a number such as '1205,61.3'")
    numbers = np.fromstring(body.replace(b"\n", b","), sep=",").reshape(-1, 2)
    indices = numbers[:, 0].astype(np.int64)
    _require_indices(file, indices, num_voxels=num_voxels)
    values = numbers[:, 1].copy()
    if not np.isfinite(values).all():  # 1e999
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise CaseError(f"{file.path}: line {row + 2}: expected a finite number, got one that overflows")
    return indices, values


def indices_of(file: RawFile, *, num_voxels: int) -> Int64[np.ndarray, " row"]:
    """Return the indices of a mask.

    Raises:
        CaseError: A line is not an index and an empty column, an index is outside or comes twice; names file and line.
    """
    body = _body(file)
    _require_rows(file, body, _NO_INDEX, expected="an index and an empty column such as '1205,'")
    indices = np.fromstring(body.replace(b",\n", b","), sep=",").astype(np.int64)
    _require_indices(file, indices, num_voxels=num_voxels)
    return indices


def sizes_of(file: RawFile) -> tuple[float, float, float]:
    """Return the three plain numbers of `voxel_dimensions.csv`.

    Raises:
        CaseError: It holds something else, or a size that is not positive.
    """
    body = _text(file)
    _require_rows(file, body, _NO_SIZE, expected="one voxel size in mm")
    sizes = [float(line) for line in body.split()]
    if len(sizes) != 3 or not all(0.0 < size < 1000.0 for size in sizes):
        raise CaseError(f"{file.path}: expected three positive voxel sizes in mm, one a line, got {sizes[:4]}")
    return (sizes[0], sizes[1], sizes[2])


def packed_values(indices: Int64[np.ndarray, " row"], values: Float64[np.ndarray, " row"]) -> bytes:
    """Return the bytes of a file of doses or intensities; numbers are written so that they read back equal."""
    rows = zip(indices.tolist(), values.tolist(), strict=True)
    return _HEADER + "".join(f"{index},{value!r}\n" for index, value in rows).encode()


def packed_indices(indices: Int64[np.ndarray, " row"]) -> bytes:
    """Return the bytes of a mask's file."""
    return _HEADER + "".join(f"{index},\n" for index in indices.tolist()).encode()


def _body(file: RawFile) -> bytes:
    """Return the rows after the header."""
    text = _text(file)
    if not text.startswith(_HEADER):
        raise CaseError(f"{file.path}: line 1: expected the header ',data', got {_shown(text)}")
    return text[len(_HEADER) :]


def _text(file: RawFile) -> bytes:
    """Return the bytes with the line ends of Unix, the last line included."""
    if len(file.content) > MAX_BYTES:
        raise CaseError(f"{file.path}: expected at most {MAX_BYTES:,} bytes, got {len(file.content):,}")
    text = file.content.replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") or not text else text + b"\n"


def _require_rows(file: RawFile, body: bytes, bad: re.Pattern[bytes], *, expected: str) -> None:
    found = bad.search(body)
    if found is not None:
        before = _text(file)[: -len(body)].count(b"\n") + body.count(b"\n", 0, found.start())
        message = f"line {before + 1}: expected {expected}, got {_shown(body[found.start() :])}"
        raise CaseError(f"{file.path}: {message}; a damaged download must be fetched again")


def _require_indices(file: RawFile, indices: Int64[np.ndarray, " row"], *, num_voxels: int) -> None:
    outside = np.flatnonzero(indices >= num_voxels)
    if outside.size:
        row = int(outside[0])
        message = f"expected an index below {num_voxels:,}, got {indices[row]:,}"
        raise CaseError(f"{file.path}: line {row + 2}: {message}; {outside.size} rows lie outside of the volume")
    if (np.diff(indices) > 0).all():  # sorted, as the published files are
        return
    order = np.argsort(indices, kind="stable")
    repeated = order[1:][np.diff(indices[order]) == 0]
    if repeated.size:
        row = int(repeated.min())
        raise CaseError(f"{file.path}: line {row + 2}: expected every index once, got {indices[row]:,} again")


def _shown(text: bytes) -> str:
    """Return the first line of `text`, shortened, as it is written in Python."""
    line = text[: text.find(b"\n")] if b"\n" in text else text
    return repr(line[:_SHOWN].decode("ascii", "backslashreplace"))
