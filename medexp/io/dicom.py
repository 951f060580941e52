"""One DICOM object from bytes that nobody vouches for: parsed within limits, its values read without printing them.

pydicom unpacks a deflated object whole, whatever its size, quotes values in its warnings, and converts numbers one by
one. Here a budget stands before every step, nothing that pydicom says about a value reaches the screen or an error
(it may be a name), and numbers are read in bulk.
"""

import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float64

from medexp.io.nifti import RawFile

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_BYTES: Final = 1 << 30  # of one object, unpacked
PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
MAX_INFLATED_BYTES: Final = 512 << 20  # deflated objects are rare, and small ones can hide much
_CHUNK_BYTES: Final = 1 << 20
_MAGIC_END: Final = 132
_META_BYTES: Final = 1 << 16
_META_GROUP: Final = b"\x02\x00"
_TRANSFER_SYNTAX: Final = b"\x02\x00\x10\x00"
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_UID: Final = re.compile(r"[0-9.]{1,64}")
_SHOWN_CHARACTERS: Final = 40


class DicomError(ValueError):
    """The bytes are no DICOM object that can be used; the reader adds the file's name."""


class NotDicomError(DicomError):
    """The bytes do not even begin as a DICOM file."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from printing a file's values, which may name a patient, and from judging each of them."""
    from pydicom import config

    logger, mode = logging.getLogger("pydicom"), config.settings.reading_validation_mode
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        config.settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            logger.setLevel(level)


def parse(file: RawFile, *, stop: frozenset[int] = frozenset()) -> "Dataset":
    """Return the object in a file's bytes, up to the first of the tags `stop`.

    Raises:
        DicomError: It is none, or more than the budget.
    """
    return parse_stream(BytesIO(file.content), stop=stop)


@quiet()
def parse_stream(stream: BufferedIOBase, *, stop: frozenset[int] = frozenset()) -> "Dataset":
    """Return the object in a file that is open for reading; only what stands before `stop` is read.

    Raises:
        DicomError: It is none, or more than the budget.
    """
    from pydicom.filereader import read_partial

    beginning = stream.read(_MAGIC_END + _META_BYTES)
    if beginning[128:_MAGIC_END] != b"DICM":
        raise NotDicomError("expected a DICOM file (DICM at byte 128), got something else")
    syntax, start = _transfer_syntax(beginning)
    stream.seek(0)
    if syntax == _DEFLATED:
        stream = BytesIO(_explicit_head() + _inflated(stream.read()[start:]))
    try:
        return read_partial(stream, lambda tag, _vr, _length: int(tag) in stop)  # type: ignore[arg-type] # it only reads
    except Exception as error:  # noqa: BLE001 - foreign bytes make pydicom raise anything, and its texts quote values
        message = f"expected an intact DICOM object, got one that pydicom cannot parse ({type(error).__name__})"
        raise DicomError(f"{message}; export the file again") from None


def _transfer_syntax(beginning: bytes) -> tuple[str, int]:
    """Return the transfer syntax by its UID and where the meta information ends (PS3.10, 7.1)."""
    place, syntax = _MAGIC_END, ""
    while beginning[place : place + 2] == _META_GROUP:
        is_long = beginning[place + 4 : place + 6] in _LONG_VRS
        length_at, length_bytes = (place + 8, 4) if is_long else (place + 6, 2)
        value_at = length_at + length_bytes
        end = value_at + int.from_bytes(beginning[length_at:value_at], "little")
        if beginning[place : place + 4] == _TRANSFER_SYNTAX:
            syntax = beginning[value_at:end].decode("ascii", "replace").strip("\0 ")
        if end > len(beginning):
            break
        place = end
    if not _UID.fullmatch(syntax):
        raise DicomError("expected a transfer syntax in the file meta information, got none; export the file again")
    return syntax, place


def _explicit_head() -> bytes:
    syntax = _EXPLICIT.encode() + b"\0"
    element = _TRANSFER_SYNTAX + b"UI" + len(syntax).to_bytes(2, "little") + syntax
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little")
    return bytes(128) + b"DICM" + length + element


def _inflated(packed: bytes) -> bytes:
    """Return unpacked bytes after a first pass that keeps none has found them to be within the budget."""
    unpacker = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    size, rest = 0, packed
    try:
        while not unpacker.eof and size <= MAX_INFLATED_BYTES:
            part = unpacker.decompress(rest, _CHUNK_BYTES)
            size, rest = size + len(part), unpacker.unconsumed_tail
            if not (part or rest or unpacker.eof):
                raise DicomError("expected deflated data with an end, got none: it is truncated; export the file again")
    except zlib.error:
        raise DicomError("expected intact deflated data, got something else; export the file again") from None
    if size > MAX_INFLATED_BYTES:
        message = f"expected at most {MAX_INFLATED_BYTES:,} bytes of deflated data, got more"
        raise DicomError(f"{message}; export the file uncompressed")
    return zlib.decompress(packed[: len(packed) - len(unpacker.unused_data)], wbits=-zlib.MAX_WBITS, bufsize=size)


def shown(value: str) -> str:
    """Return a code from a file in a form that is safe in a message: short, ASCII, on one line."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in value)
    return repr(plain if len(plain) <= _SHOWN_CHARACTERS else plain[:_SHOWN_CHARACTERS] + "...")


@quiet()
def texts(dataset: "Dataset", keyword: str) -> tuple[str, ...]:
    r"""Return an attribute's values (those between `\`) as text without padding; () if it is absent or empty."""
    element = dataset.get_item(keyword) if keyword in dataset else None
    value: Any = element.value if element is not None else None
    if isinstance(value, bytes):  # as stored: nobody has asked pydicom to convert it
        value = value.decode("ascii", "replace").split("\\")
    elif value is None or isinstance(value, str):
        value = [value or ""]
    elif not hasattr(value, "__iter__"):
        value = [value]
    values = tuple(str(part).strip("\0 ") for part in value)
    return values if any(values) else ()


def text(dataset: "Dataset", keyword: str) -> str:
    """Return a code; empty if it is absent."""
    return (*texts(dataset, keyword), "")[0]


@quiet()
def label(dataset: "Dataset", keyword: str) -> str:
    """Return a word that people chose, decoded with the object's character set; empty if it is absent."""
    try:
        value = dataset[keyword].value if keyword in dataset else None
    except Exception:  # noqa: BLE001 - a wrong character set makes pydicom raise anything; the word still tells something
        return text(dataset, keyword)
    return "" if value is None else str(value).strip("\0 ")


def uid(dataset: "Dataset", keyword: str) -> str:
    """Return a UID; empty if it is absent.

    Raises:
        DicomError: It holds something else than digits and dots.
    """
    value = text(dataset, keyword)
    if value and not _UID.fullmatch(value):
        raise DicomError(f"expected a UID of digits and dots in {keyword}, got something else")
    return value


def numbers(dataset: "Dataset", keyword: str, *, count: int | None = None) -> Float64[np.ndarray, "n"]:
    """Return the finite numbers of a decimal or integer string.

    Raises:
        DicomError: It is absent, not numeric, not finite, or not `count` long.
    """
    found = texts(dataset, keyword)
    if not found:
        raise DicomError(f"expected {keyword}, got none")
    try:
        values = np.array([float(part) for part in found])
    except ValueError:
        raise DicomError(f"expected numbers in {keyword}, got text") from None
    if not np.isfinite(values).all():
        raise DicomError(f"expected finite numbers in {keyword}, got NaN or infinity")
    if count is not None and values.size != count:
        raise DicomError(f"expected {count} numbers in {keyword}, got {values.size}")
    return values


def number(dataset: "Dataset", keyword: str) -> float:
    """Return one finite number.

    Raises:
        DicomError: It is absent or something else.
    """
    return float(numbers(dataset, keyword, count=1)[0])


@quiet()
def integer(dataset: "Dataset", keyword: str, default: int | None = None) -> int:
    """Return a whole number, stored as text or in binary form.

    Raises:
        DicomError: It is absent without a default, or something else.
    """
    try:
        value = dataset[keyword].value if keyword in dataset else None
        if value is None and default is not None:
            return default
        return int(value)  # type: ignore[arg-type]  # None is answered below
    except Exception:  # noqa: BLE001 - pydicom raises anything for a value of the wrong size, and quotes it
        raise DicomError(f"expected a whole number in {keyword}, got none") from None


@quiet()
def items(dataset: "Dataset", keyword: str) -> "list[Dataset]":
    """Return the items of a sequence; [] if it is absent.

    Raises:
        DicomError: It is no sequence.
    """
    from pydicom.sequence import Sequence as DicomSequence

    try:
        value = dataset[keyword].value if keyword in dataset else None
    except Exception:  # noqa: BLE001 - a nested item is parsed only here
        raise DicomError(f"expected intact items in {keyword}, got some that pydicom cannot parse") from None
    if value is None:
        return []
    if not isinstance(value, DicomSequence):
        raise DicomError(f"expected a sequence of items in {keyword}, got something else")
    return list(value)
