"""Normalization on reading: CT keeps its native values in the store, because their statistics belong to a fold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Num


@dataclass(frozen=True)
class ChannelStatistics:
    """What turns stored native intensities into network input: clip, subtract, divide; per channel.

    It comes from the foreground of a fold's training cases only.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, image: Num[np.ndarray, "channel i j k"]) -> Float32[np.ndarray, "channel i j k"]:
        """Return the normalized image; the argument is left as it was."""
        result = image.astype(np.float32)
        for index, channel in enumerate(result):
            np.clip(channel, self.lower[index], self.upper[index], out=channel)
            channel -= self.mean[index]
            channel /= self.deviation[index]
        return result


def statistics_of(values: Float32[np.ndarray, "channel sample"], schemes: Sequence[str]) -> ChannelStatistics:
    """Return the statistics of sampled foreground; a channel whose scheme is not `ct` passes through unchanged."""
    rows = []
    for scheme, row in zip(schemes, values.astype(np.float64), strict=True):
        if scheme == "ct":
            lower, upper = np.percentile(row, [0.5, 99.5])
            rows.append((float(lower), float(upper), float(row.mean()), max(float(row.std()), 1e-8)))
        else:
            rows.append((float("-inf"), float("inf"), 0.0, 1.0))
    lower, upper, mean, deviation = zip(*rows, strict=True)
    return ChannelStatistics(lower, upper, mean, deviation)
