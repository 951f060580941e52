"""A review without a screen: every slide for a while, as MP4 or GIF."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from medexp.errors import ConfigurationError, MissingDependencyError
from medexp.runs.files import atomic_write
from medexp.viewers.slides import Picture, Slide

_GAP = 8  # pixels around the name
_GIF_COLORS = 128


def write_video(
    path: Path,
    slides: Sequence[Slide],
    *,
    interval_s: float | int,
    alpha: float | int,
    longest: int,
    frames_per_s: int,
) -> None:
    """Write the slides with their masks and names as a film; the ending chooses `.mp4` (H.264) or `.gif`.

    Args:
        path: The film.
        slides: At least one.
        interval_s: How long a slide stays.
        alpha: Opacity of the masks.
        longest: Pixels of a frame's longer side, at most.
        frames_per_s: Of an MP4; a GIF holds each slide once.

    Raises:
        CaseError: A slide cannot be read.
        ConfigurationError: Another ending.
        MissingDependencyError: An MP4 is asked for, and the library that packs it is not installed.
        StorageError: The file cannot be written.
    """
    if path.suffix not in {".mp4", ".gif"}:
        raise ConfigurationError(f"view.formats: expected mp4 or gif, got {path.suffix.removeprefix('.')!r}")
    frames = _frames(slides, alpha, longest)
    with atomic_write(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(temporary, frames, interval_s)
        else:
            _write_mp4(temporary, frames, interval_s, frames_per_s)


def _frames(slides: Sequence[Slide], alpha: float | int, longest: int) -> Iterator[UInt8[np.ndarray, "row column 3"]]:
    """Yield one frame per slide, all of one size: that of the first, into whose middle the others are put."""
    size: tuple[int, int] | None = None
    for number, slide in enumerate(slides, start=1):
        picture = Picture.of(slide, longest=longest).blended(float(alpha))
        size = size or (picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2)  # H.264 wants even sides
        yield _named(_fitted(picture, size), f"{slide.name}  {number}/{len(slides)}")


def _fitted(picture: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "row column 3"]:
    from PIL import Image

    if picture.shape[:2] == size:
        return picture
    image = Image.fromarray(picture)
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    shape = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    frame = Image.new("RGB", (size[1], size[0]))
    frame.paste(image.resize(shape), ((size[1] - shape[0]) // 2, (size[0] - shape[1]) // 2))
    return np.asarray(frame)


def _named(picture: UInt8[np.ndarray, "row column 3"], name: str) -> UInt8[np.ndarray, "row column 3"]:
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    text = name.encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
    left, top, right, bottom = draw.textbbox((_GAP, _GAP), text)
    draw.rectangle((left - _GAP // 2, top - _GAP // 2, right + _GAP // 2, bottom + _GAP // 2), fill=(0, 0, 0))
    draw.text((_GAP, _GAP), text, fill=(255, 255, 255))
    return np.asarray(image)


def _write_gif(path: Path, frames: Iterator[UInt8[np.ndarray, "row column 3"]], interval_s: float | int) -> None:
    from PIL import Image

    images = [Image.fromarray(frame).quantize(_GIF_COLORS, dither=Image.Dither.NONE) for frame in frames]
    options: dict[str, Any] = {"duration": max(20, round(1000 * interval_s)), "loop": 0}
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], **options)


def _write_mp4(
    path: Path, frames: Iterator[UInt8[np.ndarray, "row column 3"]], interval_s: float | int, frames_per_s: int
) -> None:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("viewers") from error
    repeats = max(1, round(interval_s * frames_per_s))
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=frames_per_s, options={"crf": "20", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"  # what every player shows
        for number, picture in enumerate(frames):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            for _ in range(repeats):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
