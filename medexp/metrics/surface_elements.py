"""Surface elements of a voxel mask: how much surface each corner between voxels carries.

A corner sees the 2x2x2 voxels around it (2x2 pixels in an image). Which of them are foreground is the neighbor
code of the corner, and marching cubes gives each code a few triangles, hence an area.

Source:
    google-deepmind/surface-distance, `lookup_tables.py` (Apache-2.0). Only the facts of its table stand here: the
    kinds of triangles of each code, in its order, so that sums round alike. Compared with MONAI's copy of the
    table in tests/metrics/test_monai_agreement.py.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

# Kind of triangle -> its normal in voxels of unit size, length = area. Signs do not change an area.
_NORMALS = {
    "a": (0.125, 0.125, 0.125),
    "b": (0.25, 0.25, 0.25),
    "c": (0.375, 0.375, 0.375),
    "i": (0.5, 0.0, 0.0),
    "j": (0.0, 0.5, 0.0),
    "k": (0.0, 0.0, 0.5),
    "x": (0.0, 0.25, 0.25),
    "y": (0.25, 0.0, 0.25),
    "z": (0.25, 0.25, 0.0),
}

# Triangles of the codes 0 to 127, "-" for none. Code c has those of 255 - c: inside and outside change places.
_TRIANGLES = """
- a a zz a yy aa iba a aa yy iba zz iba iba ii
a xx aa jba aa kba aaa abba aa xxa yya acxy azz cxaz iaba iab
a aa xx jab aa ayy xxa cxay aa aaa kba bbaa azz ibaa xcaz iba
zz jba jab jj zza cyaz ajba jba azz jbaa czay jba zzzz zza azz zz
a aa aa azz xx kba xxa cxaz aa aaa ayy ibaa jba bbaa ycxa iba
yy kba ayy ycza kba kk aabk abk yya kbaa yyyy ayy ycza kba ayy yy
aa aaa axx jaba xxa kbaa xxxx xxa aaa aaaa kbaa aaa jbaa aaa xxa aa
iba baba cxay jba czxa abk axx xx ibaa aaa yya aa zza aa aa a
"""


@lru_cache(maxsize=64)
def element_sizes(spacing_mm: tuple[float, ...]) -> Float[np.ndarray, " code"]:
    """Return the surface of each neighbor code: area in mm2 for three voxel sizes, length in mm for two.

    The first and the last code (nothing, everything) carry none. The array is shared: do not write to it.
    """
    sizes = _areas_mm2(*spacing_mm) if len(spacing_mm) == 3 else _lengths_mm(*spacing_mm)
    sizes.setflags(write=False)
    return sizes


def neighbor_codes(labels: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Return the neighbor code of every corner, outer corners included: one more than voxels along each axis.

    The voxel before the corner on all axes counts 128 (8 in an image), the one behind it on all axes 1. Sums are
    modulo 256. With values other than 0 and 1 the codes mean nothing; one legacy score of BraTS feeds such maps
    and needs this remainder (`medexp.metrics.brats`).
    """
    codes = np.pad(labels, 1)
    for step in range(labels.ndim):  # last axis first: x2 weighs 2 : 1, x1 4 : 1, x0 16 : 1
        axis = labels.ndim - 1 - step
        before = (slice(None),) * axis + (slice(None, -1),)
        behind = (slice(None),) * axis + (slice(1, None),)
        codes = codes[before] * np.uint8(2 ** (2**step)) + codes[behind]
    return codes


def _areas_mm2(*spacing_mm: float) -> Float[np.ndarray, "256"]:
    first, second, third = spacing_mm
    faces = (second * third, first * third, first * second)
    area = {
        kind: float(np.linalg.norm(np.array([part * face for part, face in zip(normal, faces, strict=True)])))
        for kind, normal in _NORMALS.items()
    }
    half = [sum(area[kind] for kind in triangles if kind != "-") for triangles in _TRIANGLES.split()]
    return np.array(half + half[::-1], dtype=np.float64)


def _lengths_mm(*spacing_mm: float) -> Float[np.ndarray, "16"]:
    vertical, horizontal = spacing_mm
    diagonal = 0.5 * float(np.sqrt(vertical**2 + horizontal**2))
    half = [0.0, diagonal, diagonal, horizontal, diagonal, vertical, 2 * diagonal, diagonal]
    return np.array(half + half[::-1], dtype=np.float64)
