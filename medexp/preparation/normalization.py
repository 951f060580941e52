"""How intensities become network input: one scheme per channel, chosen for a cohort."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Num

from medexp.errors import ConfigurationError

Normalization = Literal["zscore_nonzero", "zscore", "auto", "none"]
CHOICES = get_args(Normalization)
_BY_CHANNEL_NAME = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}
_NATIVE = {"ct", "none"}  # stored as they are
_MASK_BELOW = 3 / 4  # nnU-Net's threshold of `median_relative_size_after_cropping`
_LEAST_DEVIATION = 1e-8


def schemes_of(normalization: str, channels: Sequence[str], *, cropped_share: float = 1.0) -> tuple[str, ...]:
    """Return the scheme of each channel.

    `auto` follows nnU-Net v2's table of channel names: CT is normalized by the foreground of the training
    cases, noNorm not at all, rescale_to_0_1 and rgb_to_0_1 as they say, everything else by its own z-score; by
    that of the voxels that are not 0 if cropping to them leaves less than three quarters of the median case.
    nnU-Net's mask is that of all channels with its holes filled, ours each channel's own.

    Args:
        normalization: One of `CHOICES`.
        channels: Their names.
        cropped_share: Of a case's voxels, those inside its crop; the median of the training cases.

    Raises:
        ConfigurationError: No such normalization.

    Source:
        nnunetv2/preprocessing/normalization/map_channel_name_to_normalization.py and
        `determine_normalization_scheme_and_whether_mask_is_used_for_norm` (Apache-2.0), the table and the rule only.
    """
    if normalization not in CHOICES:
        message = f"dataset.normalization: expected one of {', '.join(CHOICES)}, got '{normalization}'"
        raise ConfigurationError(message)
    if normalization != "auto":
        return tuple(normalization for _ in channels)
    zscore = "zscore_nonzero" if cropped_share < _MASK_BELOW else "zscore"
    return tuple(_BY_CHANNEL_NAME.get(channel.lower(), zscore) for channel in channels)


def stored_dtype(schemes: Sequence[str], native: Sequence[np.dtype]) -> np.dtype:
    """Return the type of a store's image array.

    float16 holds normalized intensities; native integers of at most 16 bits are kept as int16; all else, also a
    mixture of both kinds of channel, is float32.
    """
    if not _NATIVE.intersection(schemes):
        return np.dtype(np.float16)
    if _NATIVE.issuperset(schemes) and all(np.can_cast(dtype, np.int16, "safe") for dtype in native):
        return np.dtype(np.int16)
    return np.dtype(np.float32)


def normalize(image: Num[np.ndarray, "i j k"], scheme: str) -> Float32[np.ndarray, "i j k"]:
    """Return a channel normalized by its own voxels, in C order.

    `zscore_nonzero` takes mean and deviation (of the population) over the voxels that are not 0 and leaves 0
    where it was. `ct` and `none` return the values. A constant channel becomes 0.
    """
    values = image.astype(np.float32, order="C")
    if scheme == "zscore_nonzero":
        return _zscore_nonzero(values)
    if scheme == "zscore":
        values -= np.float32(values.mean(dtype=np.float64))
        return _divided(values, values.size)
    if scheme == "rescale":
        values -= values.min()
        values /= max(float(values.max()), _LEAST_DEVIATION)
    if scheme == "rgb":
        values /= 255.0
    return values


def _zscore_nonzero(values: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
    occupied = values != 0
    count = int(np.count_nonzero(occupied))
    if count == 0:
        return values
    values -= np.float32(values.sum(dtype=np.float64) / count)
    values *= occupied
    return _divided(values, count)


def _divided(values: Float32[np.ndarray, "i j k"], count: int) -> Float32[np.ndarray, "i j k"]:
    """Divide by the deviation of `count` values that have mean 0; the rest are 0."""
    deviation = float(np.sqrt(np.square(values).sum(dtype=np.float64) / count))
    values /= max(deviation, _LEAST_DEVIATION)
    return values
