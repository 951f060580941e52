"""NIfTI files that must not pass: each maker takes the path of a good `.nii.gz` and spoils it."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

Maker = Callable[[Path], None]


def header_bytes(offset: int, layout: str, *values: float | bytes) -> Maker:
    """Return a maker that overwrites a header field (little-endian)."""

    def spoil(path: Path) -> None:
        data = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into("<" + layout, data, offset, *values)
        replace(path, gzip.compress(bytes(data)))

    return spoil


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def voxels(value: float) -> Maker:
    """Return a maker that writes one voxel of `value` into a float file."""

    def spoil(path: Path) -> None:
        data = bytearray(gzip.decompress(path.read_bytes()))
        shape = struct.unpack_from("<3h", data, 42)
        floats = np.full(int(np.prod(shape)), 7.0, np.float32)
        floats[5] = value
        struct.pack_into("<hh", data, 70, 16, 32)
        replace(path, gzip.compress(bytes(data[:352]) + floats.tobytes()))

    return spoil


def truncated_gzip(path: Path) -> None:
    content = path.read_bytes()
    replace(path, content[: len(content) // 2])


def truncated_voxels(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    replace(path, gzip.compress(data[: len(data) // 2]))


def flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    replace(path, bytes(content))


def bomb(path: Path) -> None:
    """A stream that goes on for 300 MB behind the last voxel of a tiny volume."""
    data = gzip.decompress(path.read_bytes())
    with path.open("wb") as stream:
        pass
    with gzip.open(path, "wb", 1) as stream:
        stream.write(data)
        for _ in range(300):
            stream.write(bytes(1 << 20))


def random_bytes(path: Path) -> None:
    replace(path, gzip.compress(np.random.default_rng(0).bytes(5000)))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


def no_permission(path: Path) -> None:
    path.chmod(0)


def not_gzip(path: Path) -> None:
    replace(path, gzip.decompress(path.read_bytes()))


def both_forms_absent(path: Path) -> None:
    header_bytes(252, "hh", 0, 0)(path)


NAN = float("nan")
INF = float("inf")

# name -> (maker, words that the reason must contain)
CORPUS: dict[str, tuple[Maker, str]] = {
    "empty file": (lambda path: replace(path, b""), "empty"),
    "truncated gzip": (truncated_gzip, "truncated"),
    "truncated voxels": (truncated_voxels, "truncated"),
    "wrong checksum": (flipped_bit, "gzip"),
    "not gzip": (not_gzip, "gzip"),
    "random bytes": (random_bytes, "NIfTI header"),
    "gzip bomb": (bomb, "more than its header says"),
    "bad magic": (header_bytes(344, "4s", b"oops"), "magic"),
    "header of a pair": (header_bytes(344, "4s", b"ni1\0"), "magic"),
    "dims 20000^3": (header_bytes(40, "4h", 3, 20000, 20000, 20000), "at most"),
    "dims zero": (header_bytes(42, "h", 0), "3-D"),
    "200 dimensions": (header_bytes(40, "h", 200), "dimensions"),
    "2-D": (header_bytes(40, "4h", 2, 24, 28, 1), "3-D"),
    "a single slice": (header_bytes(46, "h", 1), "single slice"),
    "4-D": (header_bytes(40, "5h", 4, 12, 28, 24, 2), "3-D"),
    "complex numbers": (header_bytes(70, "hh", 32, 64), "integers or floats"),
    "colors": (header_bytes(70, "hh", 128, 24), "integers or floats"),
    "unknown data type": (header_bytes(70, "hh", 999, 8), "data type"),
    "voxels inside the header": (header_bytes(108, "f", 100.0), "start at byte"),
    "voxels nowhere": (header_bytes(108, "f", NAN), "start at byte"),
    "slope infinite": (header_bytes(112, "ff", INF, 0.0), "scaling"),
    "intercept not a number": (header_bytes(112, "ff", 2.0, NAN), "scaling"),
    "pixdim zero": (header_bytes(80, "f", 0.0), "voxel sizes"),
    "pixdim negative": (header_bytes(80, "f", -1.0), "voxel sizes"),
    "micrometers": (header_bytes(123, "B", 3), "millimeters"),
    "affine absent": (both_forms_absent, "orientation"),
    "affine not a number": (header_bytes(280, "f", NAN), "finite s-form"),
    "affine zero": (header_bytes(280, "12f", *[0.0] * 12), "inverted"),
    "affine flat": (header_bytes(280, "12f", 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0), "inverted"),
    "quaternion impossible": (header_bytes(252, "hhfff", 1, 0, 3.0, 3.0, 3.0), "q-form"),
    "voxel not a number": (voxels(NAN), "finite voxels"),
    "voxel infinite": (voxels(INF), "finite voxels"),
    "folder": (folder_instead, "readable file"),
    "link to itself": (link_to_itself, "readable file"),
    "link to nothing": (link_to_nothing, "readable file"),
}
if os.geteuid() != 0:  # root reads everything
    CORPUS["no permission"] = (no_permission, "Permission denied")
