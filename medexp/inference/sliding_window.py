"""Run a network over a whole image by overlapping windows, blended by a Gaussian."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from math import ceil
from typing import Literal

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn.functional import pad

from medexp.errors import ConfigurationError
from medexp.types import Count, PartialShare

NetworkFunction = Callable[[Tensor], Tensor]
Slices = tuple[slice, ...]
Padding = Literal["zeros", "reflect"]

_SIGMA_SHARE = 0.125  # of the window's side: MONAI's and nnU-Net's value
_LEAST_IMPORTANCE = 1e-3  # MONAI's floor: corners keep a voice, and no weight is zero
_NEARLY_ZERO = 2.0**-60  # what the background weighs before any window has; exact to multiply and divide by
_PROBE_STEP = 8  # voxels; nearly every window that holds foreground is found by this coarse look


class SlidingWindow:
    """Cover an image by windows of one size and average their outputs, the center of a window counting most.

    The windows lie as MONAI's do: `overlap` apart, the last one of each axis moved back to end with the image.
    An image smaller than the window is padded around it, and the output is cropped back.

    With `skip_background`, a window without foreground is not run; foreground is every voxel with a channel that
    is not exactly zero. Such a voxel keeps all windows that hold it, so its result does not change; a background
    voxel may be averaged over fewer windows, and gets the background's output if all of its windows are skipped.

    Args:
        overlap: Share of a window's side that neighbors have in common, at least 0 and below 1.
        batch_size: Windows that run at once.
        skip_background: Do not run windows without foreground.
        padding: What lies around a small image: "zeros", or "reflect" for the image mirrored at its edges.

    Raises:
        ConfigurationError: A value is out of its range.

    Source:
        `monai.inferers.sliding_window_inference(mode="gaussian")`; agrees with it to 1e-5 where nothing is skipped
        (tests/inference/test_sliding_window.py).
    """

    def __init__(
        self, *, overlap: PartialShare, batch_size: Count, skip_background: bool, padding: Padding = "zeros"
    ) -> None:
        if not 0 <= overlap < 1:
            raise ConfigurationError(f"overlap: expected at least 0 and below 1, got {overlap}")
        if batch_size < 1:
            raise ConfigurationError(f"window batch_size: expected at least 1, got {batch_size}")
        self.overlap = overlap
        self.batch_size = batch_size
        self.skip_background = skip_background
        self.padding = padding
        self._importance: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    @torch.no_grad()
    def __call__(
        self,
        network: NetworkFunction,
        image: Float[Tensor, "channel *spatial"],
        *,
        patch_size: Sequence[int],
        background: Sequence[float] = (),
        foreground: Shaped[Tensor, "1 *spatial"] | None = None,
    ) -> Float[Tensor, "output *spatial"]:
        """Return the blended output in float32, on the image's device.

        Args:
            network: Takes windows `[batch, channel, *window]` and returns as many outputs of the same size.
            image: The whole image; background is exactly zero.
            patch_size: Size of the windows; one value per axis of the image.
            background: The output, per channel, of a voxel that no window covers; empty means zeros.
            foreground: What is not zero where foreground is; None: the image itself.
        """
        size = tuple(image.shape[1:])
        if len(patch_size) != len(size):
            raise ConfigurationError(f"dataset.patch_size: expected {len(size)} sides, got {tuple(patch_size)}")
        padded, inside = _pad_to(image, tuple(patch_size), self.padding)
        places = list(self.places(tuple(padded.shape[1:]), patch_size))
        if self.skip_background:
            shown = padded if foreground is None else _pad_to(foreground, tuple(patch_size), "zeros")[0]
            places = _holding_foreground(shown, places) or places[:1]
        return self._blend(network, padded, places, background)[(slice(None), *inside)]

    def places(self, size: Sequence[int], window: Sequence[int]) -> Iterator[Slices]:
        """Yield the windows of an image that is nowhere smaller than a window."""
        starts = [self._starts(length, side) for length, side in zip(size, window, strict=True)]
        for corner in product(*starts):
            yield tuple(slice(start, start + side) for start, side in zip(corner, window, strict=True))

    def _starts(self, length: int, side: int) -> list[int]:
        step = max(int(side * (1 - self.overlap)), 1)
        return [min(index * step, length - side) for index in range(ceil((length - side) / step) + 1)]

    def _blend(
        self,
        network: NetworkFunction,
        image: Float[Tensor, "channel *spatial"],
        places: Sequence[Slices],
        background: Sequence[float],
    ) -> Float[Tensor, "output *spatial"]:
        importance = self.importance(tuple(part.stop - part.start for part in places[0]), image.device)
        weight = image.new_full(image.shape[1:], _NEARLY_ZERO, dtype=torch.float32)
        total = None
        for first in range(0, len(places), self.batch_size):
            batch = places[first : first + self.batch_size]
            outputs = network(_stack(image, batch))
            if total is None:
                total = _start(outputs, background, like=weight)
            for place, output in zip(batch, outputs, strict=True):
                total[(slice(None), *place)].addcmul_(output.float(), importance)
                weight[place] += importance
            del outputs, output  # else two batches of outputs are held while the next one runs
        assert total is not None
        return total.div_(weight)

    def importance(self, window: tuple[int, ...], device: torch.device) -> Float[Tensor, "*window"]:
        """Return the weight of each voxel of a window; computed once per size and device."""
        key = (window, device)
        if key not in self._importance:
            self._importance[key] = _gaussian(window).to(device)
        return self._importance[key]


def _gaussian(window: tuple[int, ...]) -> Float[Tensor, "*window"]:
    importance = torch.ones(())
    for side in window:
        distance = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        importance = importance.unsqueeze(-1) * torch.exp(-0.5 * (distance / (_SIGMA_SHARE * side)) ** 2)
    return importance.clamp_min_(max(float(importance.min()), _LEAST_IMPORTANCE))


def _pad_to(
    image: Shaped[Tensor, "channel *spatial"], window: tuple[int, ...], padding: Padding
) -> tuple[Shaped[Tensor, "channel *padded"], Slices]:
    """Return the image padded to at least one window, and where the original lies in it."""
    missing = [max(side - length, 0) for length, side in zip(image.shape[1:], window, strict=True)]
    before = [total // 2 for total in missing]
    inside = tuple(slice(start, start + length) for start, length in zip(before, image.shape[1:], strict=True))
    if not any(missing):
        return image, inside
    margins = [(start, total - start) for start, total in zip(before, missing, strict=True)]
    if padding == "reflect":
        for axis, (first, last) in enumerate(margins, start=1):
            image = image.index_select(axis, _mirrored(image.shape[axis], first, last, image.device))
        return image, inside
    return pad(image, [side for axis in reversed(margins) for side in axis]), inside


def _mirrored(length: int, before: int, after: int, device: torch.device) -> Integer[Tensor, " padded"]:
    """Return which pixel stands at each place of a side that is mirrored at its ends, as often as it takes."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(-before, length + after, device=device) % period
    return torch.minimum(places, period - places) if length > 1 else torch.zeros_like(places)


def _holding_foreground(image: Shaped[Tensor, "channel *spatial"], places: Sequence[Slices]) -> list[Slices]:
    """Return the windows with a voxel that is not zero.

    A coarse look finds nearly all of them. Of the others each voxel is read once, however many windows share it: the
    image falls into blocks between the windows' faces, and each block is looked at when a window first needs it.
    """
    faces = [sorted({face for part in axis for face in (part.start, part.stop)}) for axis in zip(*places, strict=True)]
    known: dict[tuple[tuple[int, int], ...], bool] = {}

    def holds(block: tuple[tuple[int, int], ...]) -> bool:
        if block not in known:
            voxels = image[(slice(None), *(slice(start, stop) for start, stop in block))]
            known[block] = any(bool(channel.any()) for channel in voxels)
        return known[block]

    held = []
    for place in places:
        coarse = image[(slice(None), *(slice(part.start, part.stop, _PROBE_STEP) for part in place))]
        sides = (_pieces(part, of_axis) for part, of_axis in zip(place, faces, strict=True))
        if bool(coarse.any()) or any(holds(block) for block in product(*sides)):
            held.append(place)
    return held


def _pieces(part: slice, faces: Sequence[int]) -> list[tuple[int, int]]:
    """Cut one side of a window at the faces of all windows."""
    return list(pairwise(face for face in faces if part.start <= face <= part.stop))


def _stack(image: Float[Tensor, "channel *spatial"], places: Sequence[Slices]) -> Shaped[Tensor, "batch channel ..."]:
    """Return the windows as a batch; a single one is a view."""
    if len(places) == 1:
        return image[(slice(None), *places[0])].unsqueeze(0)
    return torch.stack([image[(slice(None), *place)] for place in places])


def _start(
    outputs: Float[Tensor, "batch output *window"], background: Sequence[float], *, like: Float[Tensor, "*spatial"]
) -> Float[Tensor, "output *spatial"]:
    """Return the sums before the first window: the background's output, weighing nearly nothing."""
    total = like.new_empty((outputs.shape[1], *like.shape))
    for channel, value in zip(total, background or [0.0] * len(total), strict=True):
        channel.fill_(value * _NEARLY_ZERO)
    return total
