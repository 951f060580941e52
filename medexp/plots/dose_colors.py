"""Colors of doses: structures, the wash from 0 to 75 Gy, differences and gamma, and how they lie on a CT.

Structures have colors of Okabe and Ito, Paul Tol and ColorBrewer, chosen so that the nearest two of a dataset stay
apart (more than 14 in CIE Lab) for eyes with all cones, without red and without green ones. The wash is "turbo": it
runs from blue over green to red as planning systems have it, but its lightness has no false edges.
"""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped, UInt8

from medexp.plots.overlays import LABEL_COLORS

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap

STRUCTURE_COLORS: Final = {
    "PTV70": "#d55e00",
    "PTV63": "#cc79a7",
    "PTV56": "#4477aa",
    "PTV50.4": "#88ccee",
    "Prostate": "#cc79a7",
    "Rectum": "#7a4419",
    "Bladder": "#f0c020",
    "Femur_L": "#5b8c5a",
    "Femur_R": "#a3d65c",
    "Bowel": "#777777",
    "Brainstem": "#f0c020",
    "SpinalCord": "#5b8c5a",
    "RightParotid": "#fb9a99",
    "LeftParotid": "#88ccee",
    "Esophagus": "#7a4419",
    "Larynx": "#777777",
    "Mandible": "#a3d65c",
}
CT_WINDOW_HU: Final = (-160.0, 240.0)
WASH_GY: Final = 75.0  # above 107 % of 70 Gy, which a plan may reach
_HOTTEST = 1.07
_NUM_COLORS = 256
_TISSUE = 0.45  # gray of soft tissue in the window: what a legend's colors lie on
_WASH_OPACITY, _LEAST_SHARE = 0.55, 0.05  # of the prescription; below, the CT alone is seen
_DIMMED = 0.6  # of the CT under differences and gamma, so that bone is not taken for a pale color
_DIFFERENCE_OPACITY, _FULL_FROM = 0.9, 0.35  # of the limit; smaller differences are the more transparent
_PASSING_OPACITY, _FAILING_OPACITY = 0.55, 0.95
_PASSING = ("#e3eef8", "#4f8fc4")  # gamma 0 and 1
_FAILING = ("#f6a58a", "#c2261c", "#5e0712")  # just above 1, and the largest
_LIMITS_GY = (2.0, 5.0, 10.0, 20.0, 40.0)


def structure_colors(structures: Sequence[str]) -> dict[str, str]:
    """Return a color for each structure; those that no dataset of ours has take what is left, in order."""
    others = iter([*LABEL_COLORS] * (1 + len(structures) // len(LABEL_COLORS)))
    return {name: STRUCTURE_COLORS[name] if name in STRUCTURE_COLORS else next(others) for name in structures}


def wash_limit_gy(prescription_gy: float) -> float:
    """Return where the wash ends: 75 Gy, or 107 % of a prescription that would reach over it."""
    return max(WASH_GY, 5.0 * ceil(_HOTTEST * prescription_gy / 5.0))


def difference_limit_gy(differences_gy: Float32[np.ndarray, "..."]) -> float:
    """Return where the scale of differences ends: the first of 2, 5, 10, 20, 40 Gy that holds 99 % of them."""
    if differences_gy.size == 0:
        return _LIMITS_GY[0]
    largest = float(np.percentile(np.abs(differences_gy), 99.0))
    return next((limit for limit in _LIMITS_GY if largest <= limit), _LIMITS_GY[-1])


def gray_of_ct(ct_hu: Shaped[np.ndarray, "row column"]) -> Float32[np.ndarray, "row column"]:
    """Return a CT in the window of soft tissue, 0 to 1."""
    low, high = CT_WINDOW_HU
    return np.clip((ct_hu.astype(np.float32) - low) / (high - low), 0.0, 1.0)


def washed(
    gray: Float32[np.ndarray, "row column"], dose_gy: Float[np.ndarray, "row column"], prescription_gy: float
) -> UInt8[np.ndarray, "row column 3"]:
    """Return dose in colors on a CT; none below 5 % of the prescription."""
    limit = wash_limit_gy(prescription_gy)
    share = np.clip(dose_gy / np.float32(limit), 0.0, 1.0)
    return _mixed(gray, _colors(wash_map(), share), _wash_opacity(share * limit, prescription_gy))


def differing(
    gray: Float32[np.ndarray, "row column"], difference_gy: Float[np.ndarray, "row column"], limit_gy: float
) -> UInt8[np.ndarray, "row column 3"]:
    """Return differences on a CT: red where there is too much, blue where there is too little."""
    share = np.clip(difference_gy / np.float32(limit_gy), -1.0, 1.0)
    return _mixed(gray * np.float32(_DIMMED), _colors(difference_map(), share / 2 + 0.5), _difference_opacity(share))


def gamma_painted(
    gray: Float32[np.ndarray, "row column"], gamma: Float[np.ndarray, "row column"], max_gamma: float
) -> UInt8[np.ndarray, "row column 3"]:
    """Return gamma on a CT: blue where it passes, red where it fails, nothing where there is none."""
    known = np.isfinite(gamma)
    values = np.where(known, gamma, 0.0).astype(np.float32)
    painted = _colors(gamma_map(max_gamma), _gamma_share(values, max_gamma))
    return _mixed(gray * np.float32(_DIMMED), painted, known * _gamma_opacity(values))


def _gamma_share(gamma: Float32[np.ndarray, "..."], max_gamma: float) -> Float32[np.ndarray, "..."]:
    """Return the place in the color map: exactly 1 still passes."""
    share = np.clip(gamma / np.float32(max_gamma), 0.0, 1.0)
    last_passing = np.float32((round(_NUM_COLORS / max_gamma) - 0.5) / _NUM_COLORS)
    first_failing = last_passing + np.float32(1.0 / _NUM_COLORS)
    return np.where(gamma <= 1.0, np.minimum(share, last_passing), np.maximum(share, first_failing))


def wash_map() -> "ListedColormap":
    """Return the colors of dose, from none to the end of the wash."""
    import matplotlib

    return _listed(matplotlib.colormaps["turbo"](np.linspace(0.03, 0.93, _NUM_COLORS))[:, :3])


def difference_map() -> "ListedColormap":
    """Return the colors of differences, from too little to too much."""
    import matplotlib

    return _listed(matplotlib.colormaps["RdBu_r"](np.linspace(0.04, 0.96, _NUM_COLORS))[:, :3])


def gamma_map(max_gamma: float) -> "ListedColormap":
    """Return the colors of gamma from 0 to its largest; they jump at 1."""
    from matplotlib.colors import LinearSegmentedColormap

    passing = round(_NUM_COLORS / max_gamma)
    lower, upper = (
        LinearSegmentedColormap.from_list("", colors)(np.linspace(0.0, 1.0, count))[:, :3]
        for colors, count in ((_PASSING, passing), (_FAILING, _NUM_COLORS - passing))
    )
    return _listed(np.concatenate([lower, upper]))


def wash_legend(prescription_gy: float) -> "ListedColormap":
    """Return the colors of dose as they look on soft tissue, from 0 to the end of the wash."""
    share = np.linspace(0.0, 1.0, _NUM_COLORS, dtype=np.float32)
    return _on_tissue(
        wash_map(), share, _wash_opacity(share * wash_limit_gy(prescription_gy), prescription_gy), tissue=_TISSUE
    )


def difference_legend() -> "ListedColormap":
    """Return the colors of differences as they look on soft tissue."""
    share = np.linspace(-1.0, 1.0, _NUM_COLORS, dtype=np.float32)
    return _on_tissue(difference_map(), share / 2 + 0.5, _difference_opacity(share), tissue=_DIMMED * _TISSUE)


def gamma_legend(max_gamma: float) -> "ListedColormap":
    """Return the colors of gamma as they look on soft tissue."""
    share = np.linspace(0.0, 1.0, _NUM_COLORS, dtype=np.float32)
    return _on_tissue(gamma_map(max_gamma), share, _gamma_opacity(share * max_gamma), tissue=_DIMMED * _TISSUE)


def _wash_opacity(dose_gy: Float[np.ndarray, "..."], prescription_gy: float) -> Float32[np.ndarray, "..."]:
    seen: Bool[np.ndarray, "..."] = dose_gy >= _LEAST_SHARE * prescription_gy
    return seen.astype(np.float32) * np.float32(_WASH_OPACITY)


def _difference_opacity(share: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return (_DIFFERENCE_OPACITY * np.clip(np.abs(share) / _FULL_FROM, 0.0, 1.0)).astype(np.float32)


def _gamma_opacity(gamma: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return np.where(gamma <= 1.0, np.float32(_PASSING_OPACITY), np.float32(_FAILING_OPACITY))


def _on_tissue(
    colors: "ListedColormap",
    share: Float32[np.ndarray, " color"],
    opacity: Float32[np.ndarray, " color"],
    *,
    tissue: float,
) -> "ListedColormap":
    gray = np.full((1, len(share)), tissue, np.float32)
    return _listed(_mixed(gray, _colors(colors, share[None]), opacity[None])[0] / 255.0)


def _colors(colors: "ListedColormap", share: Float[np.ndarray, "row column"]) -> Float32[np.ndarray, "row column 3"]:
    return np.asarray(colors(share), np.float32)[..., :3]


def _mixed(
    gray: Float32[np.ndarray, "row column"],
    colors: Float32[np.ndarray, "row column 3"],
    opacity: Float[np.ndarray, "row column"],
) -> UInt8[np.ndarray, "row column 3"]:
    weight = opacity[..., None]
    return np.rint(255.0 * (gray[..., None] * (1.0 - weight) + colors * weight)).astype(np.uint8)


def _listed(colors: Float[np.ndarray, "color 3"]) -> "ListedColormap":
    from matplotlib.colors import ListedColormap

    return ListedColormap([tuple(color) for color in colors.tolist()])
