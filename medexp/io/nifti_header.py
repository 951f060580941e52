"""The header of a NIfTI-1 or NIfTI-2 file: its fields, as stored, in either byte order.

Our own because reading a header is all that is needed of a library that takes a second to import and corrects
silently what must be refused. The tests compare every field with nibabel.

Source:
    nifti1.h and nifti2.h (https://nifti.nimh.nih.gov, public domain).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

# Name: (offset in version 1, type in version 1, offset in version 2, type in version 2, number of values)
_FIELDS: Final = {
    "dim": (40, "i2", 16, "i8", 8),
    "datatype": (70, "i2", 12, "i2", 1),
    "bitpix": (72, "i2", 14, "i2", 1),
    "pixdim": (76, "f4", 104, "f8", 8),
    "vox_offset": (108, "f4", 168, "i8", 1),
    "scl_slope": (112, "f4", 176, "f8", 1),
    "scl_inter": (116, "f4", 184, "f8", 1),
    "xyzt_units": (123, "u1", 500, "i4", 1),
    "cal_max": (124, "f4", 192, "f8", 1),
    "cal_min": (128, "f4", 200, "f8", 1),
    "qform_code": (252, "i2", 344, "i4", 1),
    "sform_code": (254, "i2", 348, "i4", 1),
    "quatern": (256, "f4", 352, "f8", 3),
    "qoffset": (268, "f4", 376, "f8", 3),
    "srow": (280, "f4", 400, "f8", 12),
}
_SIZES: Final = {348: 1, 540: 2}
_MAGIC: Final = {1: (344, b"n+1\0"), 2: (4, b"n+2\0\r\n\x1a\n")}
_TYPES: Final = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_QUATERNION_TOLERANCE: Final = 3 * float(np.finfo(np.float32).eps)


class HeaderError(ValueError):
    """The bytes are no header that can be used; the reader adds the file's name."""


@dataclass(frozen=True)
class RawHeader:
    """A header's bytes with its version (1 or 2) and byte order ("<" or ">")."""

    content: bytes
    version: int
    order: str

    @classmethod
    def of(cls, data: bytes) -> "RawHeader":
        """Return the header at the beginning of a file's unpacked bytes.

        Raises:
            HeaderError: There is none, or it belongs to a pair of files.
        """
        for order in "<>":
            size = int(np.frombuffer(data[:4], f"{order}i4")[0]) if len(data) >= 4 else 0
            if size in _SIZES and len(data) >= size:
                header = cls(bytes(data[:size]), _SIZES[size], order)
                header._require_magic()
                return header
        raise HeaderError(f"expected a NIfTI header of 348 or 540 bytes, got none in {len(data):,} bytes")

    def _require_magic(self) -> None:
        offset, magic = _MAGIC[self.version]
        found = self.content[offset : offset + len(magic)]
        if found[:3] != magic[:3]:
            raise HeaderError(f"expected a single-file NIfTI (magic {magic[:3].decode()}), got magic {found!r}")

    def values(self, name: str) -> Float64[np.ndarray, "n"]:
        """Return a field's values as floats, which hold all of them exactly up to 2^53."""
        offset, kind, count = self._place(name)
        return np.frombuffer(self.content, kind, count, offset).astype(np.float64)

    def value(self, name: str) -> float:
        """Return a field of one value."""
        return float(self.values(name)[0])

    def replaced(self, name: str, *values: float | int) -> "RawHeader":
        """Return a header with another content of one field."""
        offset, kind, count = self._place(name)
        stored = np.array(values, kind)
        if stored.shape != (count,):
            raise ValueError(f"expected {count} values for {name}, got {values}")
        content = self.content[:offset] + stored.tobytes() + self.content[offset + stored.nbytes :]
        return RawHeader(content, self.version, self.order)

    def _place(self, name: str) -> tuple[int, str, int]:
        first, first_type, second, second_type, count = _FIELDS[name]
        offset, kind = (first, first_type) if self.version == 1 else (second, second_type)
        return offset, f"{self.order}{kind}", count

    @property
    def dtype(self) -> np.dtype:
        """The type of a voxel, in the header's byte order.

        Raises:
            HeaderError: It is neither an integer nor a float of at most 64 bits.
        """
        code = int(self.value("datatype"))
        if code not in _TYPES:
            raise HeaderError(f"expected integers or floats of at most 64 bits, got data type {code}")
        return np.dtype(f"{self.order}{_TYPES[code]}")

    @property
    def least_offset(self) -> int:
        """The first byte that may hold voxels: header and the four bytes that announce extensions."""
        return len(self.content) + 4

    def s_form(self) -> Float64[np.ndarray, "4 4"]:
        """Return the affine of the s-form, whatever its code says."""
        return np.concatenate([self.values("srow").reshape(3, 4), [[0.0, 0.0, 0.0, 1.0]]])

    def q_form(self) -> Float64[np.ndarray, "4 4"]:
        """Return the affine of the q-form, whatever its code says.

        Raises:
            HeaderError: The quaternion is longer than 1.
        """
        b, c, d = (float(value) for value in self.values("quatern"))
        rest = 1.0 - (b * b + c * c + d * d)
        if not rest >= -_QUATERNION_TOLERANCE:
            raise HeaderError(f"expected a rotation as q-form, got the quaternion {(b, c, d)}")
        a = 0.0 if rest < _QUATERNION_TOLERANCE else rest**0.5
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
            ]
        )
        sizes = self.values("pixdim")
        handedness = -1.0 if sizes[0] < 0.0 else 1.0
        affine = np.eye(4)
        affine[:3, :3] = rotation * (sizes[1:4] * np.array([1.0, 1.0, handedness]))
        affine[:3, 3] = self.values("qoffset")
        return affine


def header_for(
    dtype: np.dtype, affine: Float64[np.ndarray, "4 4"], *, like: RawHeader | None, shape: tuple[int, ...]
) -> RawHeader:
    """Return the header of a single file that holds an array of `shape` and `dtype`.

    With `like`, geometry, units, codes and texts are its; otherwise the s-form is `affine`, in mm.

    Raises:
        HeaderError: The format has no such type.
    """
    header = like if like is not None else _fresh(affine)
    codes = {np.dtype(name): code for code, name in _TYPES.items()}
    plain = dtype.newbyteorder("=")
    if plain not in codes:
        raise HeaderError(f"expected one of {sorted(map(str, codes))}, got '{dtype}'")
    header = header.replaced("dim", 3, *shape, 1, 1, 1, 1).replaced("datatype", codes[plain])
    header = header.replaced("bitpix", 8 * plain.itemsize).replaced("vox_offset", header.least_offset)
    header = header.replaced("scl_slope", 1.0).replaced("scl_inter", 0.0)
    return header.replaced("cal_max", 0.0).replaced("cal_min", 0.0)


def _fresh(affine: Float64[np.ndarray, "4 4"]) -> RawHeader:
    offset, magic = _MAGIC[1]
    content = bytearray(348)
    content[:4] = np.array(348, "<i4").tobytes()
    content[offset : offset + len(magic)] = magic
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    header = RawHeader(bytes(content), 1, "<").replaced("pixdim", 1.0, *sizes, 1.0, 1.0, 1.0, 1.0)
    return header.replaced("srow", *affine[:3].ravel()).replaced("sform_code", 1).replaced("xyzt_units", 2)
