"""Example pictures: valid files, the same cases every time, the right colors in the right third."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imread

from medexp.callbacks.examples import _plane, picture, write_png
from tests.synthetic.training import train


def test_png_is_read_by_an_independent_reader(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    write_png(tmp_path / "x.png", pixels)
    np.testing.assert_allclose(imread(tmp_path / "x.png"), pixels / 255, atol=1e-6)


def test_picture_shows_image_reference_and_prediction() -> None:
    image = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    label, prediction = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    label[0, 1], prediction[3, 2] = 1, 2
    shown = picture(image, label, prediction)
    assert shown.shape == (4, 12, 3)
    colored = np.argwhere(np.ptp(shown.astype(int), axis=2) > 0).tolist()
    assert colored == [[0, 4 + 1], [3, 8 + 2]]
    assert shown[0, 5].tolist() != shown[3, 10].tolist()


def test_same_cases_are_drawn_at_every_validation(tmp_path: Path) -> None:
    train(tmp_path / "run")
    found = sorted(str(path.relative_to(tmp_path / "run")) for path in tmp_path.rglob("*.png"))
    assert found == [f"examples/val_{case}/step-{step:08d}.png" for case in (0, 1) for step in (14, 28)]


def test_an_image_is_shown_as_it_is() -> None:
    image = torch.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(_plane(image, torch.zeros(3, 4, dtype=torch.uint8)), image.numpy())
