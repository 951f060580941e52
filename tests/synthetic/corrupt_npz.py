"""Npz files that a reader must refuse, made from a good one, each with a name that says what is wrong."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np


def members_of(path: Path) -> dict[str, bytes]:
    """Return the members' bytes by their names in the archive."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write_members(path: Path, members: dict[str, bytes]) -> None:
    """Write an archive of exactly these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    """Return the bytes of an array as a member."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def replace_array(path: Path, key: str, array: np.ndarray, *, allow_pickle: bool = False) -> None:
    """Put another array under a key."""
    write_members(path, members_of(path) | {f"{key}.npy": npy(array, allow_pickle=allow_pickle)})


def remove_key(path: Path, key: str) -> None:
    """Take a key away."""
    write_members(path, {name: content for name, content in members_of(path).items() if name != f"{key}.npy"})


def lying_header(shape: tuple[int, ...], data: bytes = b"\0" * 64, descr: str = "<f4") -> bytes:
    """Return a member whose header promises `shape`, followed by other data."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def endless_header() -> bytes:
    """Return a member whose header claims to be 4 GB long and unpacks to 32 MB of spaces."""
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * (32 << 20)


def flip_byte(path: Path, key: str) -> None:
    """Change one byte in the middle of a member's packed data, which its checksum tells."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
    content = bytearray(path.read_bytes())
    name_length, extra_length = struct.unpack("<HH", content[info.header_offset + 26 : info.header_offset + 30])
    start = info.header_offset + 30 + name_length + extra_length
    content[start + info.compress_size // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def wrong_checksum(path: Path, key: str) -> None:
    """Change a member's checksum in the archive's directory."""
    with zipfile.ZipFile(path) as archive:
        checksum = archive.getinfo(f"{key}.npy").CRC
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    head, tail = content[:directory], content[directory:]
    path.write_bytes(head + tail.replace(struct.pack("<I", checksum), struct.pack("<I", checksum ^ 1)))
