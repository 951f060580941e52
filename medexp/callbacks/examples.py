"""Pictures of the same validation cases after every validation: image, reference, prediction."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped, UInt8
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medexp import keys
from medexp.callbacks.recorder import recorder_of
from medexp.runs.files import atomic_write
from medexp.types import Index

# Key of what a model's `validation_step` returns: label values "batch *spatial", or doses "batch 1 i j k".
PREDICTION = "prediction"
# Distinguishable without red against green; source: Okabe and Ito, Color Universal Design, 2008.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OPACITY = 0.55


class ExamplePictures(Callback):
    """Write a PNG per validation for each of the first `num_cases` validation cases.

    Shown is the first channel in the axial slice that holds most of the reference, from left to right: the image,
    the reference on it, the prediction on it. Of doses it is the slice of the highest dose. Validation cases come in a
    fixed order, so the cases and slices stay the same. Files: `examples/<case>/step-<step>.png`.
    """

    def __init__(self, *, num_cases: Index) -> None:
        self._num_cases = num_cases

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw this case if it is one of the first."""
        if trainer.sanity_checking or not trainer.is_global_zero or batch_idx >= self._num_cases:
            return
        if not isinstance(outputs, Mapping) or PREDICTION not in outputs:
            return
        if keys.DOSE in batch:
            shown = _dose_picture(batch[keys.IMAGE][0], batch[keys.DOSE][0], outputs[PREDICTION][0])
        elif keys.LABEL in batch:
            first = (batch[keys.IMAGE][0], batch[keys.LABEL][0], outputs[PREDICTION][0])
            image, label, prediction = (value.detach() for value in first)
            shown = picture(_plane(image[0], label), _plane(label, label), _plane(prediction, label))
        else:
            return
        name = _file_name(str(batch[keys.CASE][0]))
        path = Path(trainer.default_root_dir) / "examples" / name / f"step-{trainer.global_step:08d}.png"
        write_png(path, shown)
        recorder = recorder_of(trainer)
        if recorder is not None:
            recorder.tracker.log_artifact(path, f"examples/{name}")


def _plane(volume: Tensor, label: Tensor) -> Shaped[np.ndarray, "height width"]:
    """Return the slice along the last axis that holds most of the label; an image is shown as it is."""
    values = volume.float() if volume.is_floating_point() else volume
    if volume.dim() == 2:
        return values.cpu().numpy()
    index = int(torch.count_nonzero(label, dim=(0, 1)).argmax()) if label.any() else label.shape[2] // 2
    return np.flipud(values[:, :, index].cpu().numpy().T)  # the patient's front is up, as on a screen


def picture(
    image: Float[np.ndarray, "height width"],
    label: Integer[np.ndarray, "height width"],
    prediction: Integer[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height total_width 3"]:
    """Return image, reference and prediction side by side in color."""
    low, high = np.percentile(image, (0.5, 99.5))
    gray = np.clip((image - low) / max(high - low, 1e-6), 0.0, 1.0) * 255.0
    base = np.repeat(gray[:, :, None], 3, axis=2)
    return np.concatenate([base, _overlaid(base, label), _overlaid(base, prediction)], axis=1).astype(np.uint8)


def _overlaid(
    base: Float[np.ndarray, "height width 3"], label: Integer[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    shown = base.copy()
    for value in np.unique(label[label > 0]):
        color = np.asarray(_COLORS[(int(value) - 1) % len(_COLORS)], dtype=base.dtype)
        shown[label == value] = (1.0 - _OPACITY) * shown[label == value] + _OPACITY * color
    return shown


def _dose_picture(
    image: Float[Tensor, "channel i j k"], dose: Float[Tensor, "1 i j k"], prediction: Float[Tensor, "1 i j k"]
) -> UInt8[np.ndarray, "height total_width 3"]:
    """Return the CT, and the reference and predicted dose washed over it, in the slice of the highest dose."""
    index = int(dose[0].amax(dim=(0, 1)).argmax())
    gray, planned, predicted = (
        np.flipud(volume[:, :, index].float().cpu().numpy().T) for volume in (image[0], dose[0], prediction[0])
    )
    low, high = np.percentile(gray, (0.5, 99.5))
    base = np.repeat((np.clip((gray - low) / max(high - low, 1e-6), 0.0, 1.0) * 255.0)[:, :, None], 3, axis=2)
    washed = [_washed(base, wash) for wash in (planned, predicted)]
    return np.concatenate([base, *washed], axis=1).astype(np.uint8)


def _washed(
    base: Float[np.ndarray, "height width 3"], dose: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    """Return the picture under a wash from blue (low) over green to red (the prescription); no wash below a tenth."""
    level = np.clip(dose, 0.0, 1.1)[:, :, None] / 1.1
    stops = np.array([[0.0, 0.0, 255.0], [0.0, 255.0, 0.0], [255.0, 0.0, 0.0]])
    position = level * 2.0
    low = np.minimum(position, 1.0) * (stops[1] - stops[0]) + stops[0]
    color = np.where(position > 1.0, (position - 1.0) * (stops[2] - stops[1]) + stops[1], low)
    return np.where(dose[:, :, None] > 0.1, (1.0 - _OPACITY) * base + _OPACITY * color, base)


def write_png(path: Path, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
    """Write an RGB picture; a dozen lines instead of the import of a plotting library during training.

    Source: PNG specification, third edition, sections 5 and 9.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter type 0
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    with atomic_write(path, durable=False) as temporary:
        temporary.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _file_name(case: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in case).lstrip(".")[:100] or "case"
