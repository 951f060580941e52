"""Films need no screen and hold every slide for its time."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from medexp.errors import ConfigurationError, MissingDependencyError
from medexp.viewers.slides import Slide
from medexp.viewers.video import write_video
from tests.synthetic.wells import disks, write_image, write_mask

SETTINGS = {"interval_s": 0.5, "alpha": 0.5, "longest": 128, "frames_per_s": 10}


def test_an_mp4_shows_every_slide_for_its_time(tmp_path, slides):
    av = pytest.importorskip("av", reason="PyAV is not installed (medexp[viewers])")
    write_video(tmp_path / "review.mp4", slides, **SETTINGS)
    with av.open(str(tmp_path / "review.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].codec_context.name == "h264"
        assert float(film.streams.video[0].average_rate) == 10
    assert len(frames) == len(slides) * 5
    assert frames[0].shape == (96, 128, 3)
    within = np.abs(frames[0].astype(int) - frames[4]).mean()
    between = np.abs(frames[4].astype(int) - frames[5]).mean()
    assert within < 2 < between


def test_a_gif_holds_each_slide_once(tmp_path, slides):
    write_video(tmp_path / "review.gif", slides, **SETTINGS)
    with Image.open(tmp_path / "review.gif") as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
    assert durations == [500, 500, 500]


def test_images_of_other_sizes_are_fitted_into_the_frame(tmp_path, slides):
    tall = disks((40, 20, 9), shape=(131, 51))
    other = Slide("tall", write_image(tmp_path / "tall.tif", tall), write_mask(tmp_path / "tall_m.tif", tall))
    write_video(tmp_path / "review.gif", [slides[0], other], **SETTINGS)
    with Image.open(tmp_path / "review.gif") as film:
        assert [frame.size for frame in ImageSequence.Iterator(film)] == [(128, 96), (128, 96)]


def test_another_ending_is_refused(tmp_path, slides):
    with pytest.raises(ConfigurationError, match=r"view\.formats: expected mp4 or gif, got 'avi'"):
        write_video(tmp_path / "review.avi", slides, **SETTINGS)


def test_without_the_library_the_extra_is_named(tmp_path, slides, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"medexp\[viewers\]"):
        write_video(tmp_path / "review.mp4", slides, **SETTINGS)
    assert list(tmp_path.iterdir()) == []
