"""Which code decides what a store entry holds: a change in it makes new entries instead of believing old ones."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from medexp.errors import ConfigurationError
from medexp.io import nifti, tiff

_PACKAGE = Path(__file__).parents[1]

_COMMON = ("geometry/affine.py", "geometry/grids.py", "geometry/resampling.py", "preparation/entry.py")
# By kind of case, the modules that its entries depend on, as patterns below the package.
_SOURCES = {
    "volumes": (*_COMMON, "io/nifti*.py", "preparation/normalization.py", "preparation/verification.py"),
    "images": (*_COMMON, "io/tiff.py", "preparation/image_entry.py", "preparation/verification.py"),
    "doses": (
        *_COMMON,
        "geometry/contour*.py",
        "geometry/distances.py",
        "geometry/polygon_filling.py",
        "geometry/regridding.py",
        "io/dicom*.py",
        "io/dose_*.py",
        "io/npz.py",
        "io/openkbp.py",
        "io/sparse_csv.py",
        "metrics/clinical.py",
        "preparation/dose_decoding.py",
        "preparation/dose_entry.py",
        "preparation/dose_grid.py",
        "preparation/dose_quality.py",
        "preparation/rt_placing.py",
        "preparation/structure_names.py",
    ),
}
_DOSE_LIBRARIES = ("numpy", "scipy", "pydicom")


@lru_cache
def code_version(kind: str) -> str:
    """Return a hash of the source of every module that decides what an entry of a kind holds, and of its libraries."""
    digest = hashlib.sha256(str(sorted(_libraries(kind).items())).encode())
    for pattern in _SOURCES[kind]:
        paths = sorted(_PACKAGE.glob(pattern))
        if not paths:
            raise ConfigurationError(f"expected modules like {pattern} in {_PACKAGE}, found none; install medexp anew")
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _libraries(kind: str) -> dict[str, str]:
    if kind == "doses":
        return {name: version(name) for name in _DOSE_LIBRARIES}
    return tiff.reader_versions() if kind == "images" else nifti.reader_versions()
