import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medexp.errors import CaseError
from medexp.io import tiff
from medexp.io.tiff import gray_of, read_mask, read_tiff, read_tiff_header, write_mask_tiff, write_tiff

GRAY = np.random.default_rng(0).integers(0, 256, (33, 47)).astype(np.uint8)
COLORS = np.random.default_rng(1).integers(0, 256, (33, 47, 3)).astype(np.uint8)
MASK = (GRAY > 200).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.tif"


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "deflate", "tile": (16, 16)},
        {"compression": "packbits", "rowsperstrip": 5},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pixels", [GRAY, GRAY.astype(np.uint16) * 251, COLORS], ids=["8 bit", "16 bit", "RGB"])
def test_pixels_come_back_however_they_are_packed(path, how, pixels):
    tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **how)
    assert np.array_equal(read_tiff(path).array, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(path, dtype):
    pixels = GRAY.astype(dtype)
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    image = read_tiff(path)
    assert image.header.white_is_zero
    assert np.array_equal(image.array, np.iinfo(dtype).max - pixels)


def test_planes_one_after_another_are_colors(path):
    tifffile.imwrite(path, np.moveaxis(COLORS, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_tiff(path).array, COLORS)


def test_palette_and_alpha(path):
    Image.fromarray(COLORS).quantize(16).save(path)
    shown = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(read_tiff(path).array, shown)
    Image.fromarray(np.concatenate([COLORS, GRAY[..., None]], axis=2)).save(path)
    image = read_tiff(path)
    assert np.array_equal(image.array, COLORS)
    assert image.header.warnings == ("an alpha channel is left out",)


def test_one_bit_masks_are_read_as_pillow_reads_them(path):
    for photometric in ("miniswhite", "minisblack"):
        tifffile.imwrite(path, MASK.astype(bool), photometric=photometric)
        mask = read_mask(path)
        assert np.array_equal(mask.array, np.asarray(Image.open(path)).astype(np.uint8))
        assert bool(mask.warnings) == (photometric == "miniswhite")


def test_masks_of_the_real_set_are_objects_on_background(shared_data):
    """tifffile alone gives objects as False; half of the other readers agree with it."""
    for path in sorted((shared_data / "spheroids").glob("* - BW corrected/*")):
        mask = read_mask(path)
        assert 0.0 < mask.array.mean() < 0.25
        assert np.array_equal(mask.array, np.asarray(Image.open(path)).astype(np.uint8))


def test_previews_are_passed_over(shared_data):
    path = shared_data / "spheroids" / "3D static" / "1_day2_10x_CH1_8bit_18S(2).tif"
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 2
    assert read_tiff(path).array.shape == (1440, 1920)


def test_gray_rules():
    assert np.array_equal(gray_of(COLORS, "first"), COLORS[..., 0])
    assert np.array_equal(gray_of(COLORS, "mean"), np.rint(COLORS.mean(axis=2)).astype(np.uint8))
    expected = np.asarray(Image.fromarray(COLORS).convert("L")).astype(int)
    assert np.abs(gray_of(COLORS, "luminance").astype(int) - expected).max() <= 1
    equal = np.repeat(GRAY[..., None], 3, axis=2)
    for rule in ("mean", "luminance", "first"):
        assert np.array_equal(gray_of(equal, rule), GRAY)
        assert gray_of(GRAY, rule) is GRAY


def test_pixel_sizes(path):
    tifffile.imwrite(path, GRAY, ome=True, metadata={"PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm",
                                                     "PhysicalSizeY": 0.75, "PhysicalSizeYUnit": "µm"})  # fmt: skip
    assert read_tiff_header(path).pixel_size_um == pytest.approx((0.75, 0.5))
    tifffile.imwrite(path, GRAY, imagej=True, resolution=(2.0, 4.0), metadata={"unit": "um"})
    assert read_tiff_header(path).pixel_size_um == pytest.approx((0.25, 0.5))
    tifffile.imwrite(path, GRAY, resolution=(300, 300), resolutionunit="inch")
    assert read_tiff_header(path).pixel_size_um is None


def test_what_is_written_is_read_again(path):
    probability = np.random.default_rng(2).random((20, 30), np.float32)
    write_tiff(path, probability, pixel_size_um=(1.3, 0.65))
    image = read_tiff(path)
    assert np.array_equal(image.array, probability)
    assert image.header.pixel_size_um == (1.3, 0.65)
    write_mask_tiff(path, MASK)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.LZW
        assert file.pages[0].dtype == np.uint8
        assert set(np.unique(file.pages[0].asarray())) == {0, 255}
    assert np.array_equal(read_mask(path).array, MASK)
    first = path.read_bytes()
    write_mask_tiff(path, MASK)
    assert path.read_bytes() == first


def refusal(path: Path, read=read_tiff) -> str:
    with pytest.raises(CaseError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_cut_of_a_file_is_refused(path):
    tifffile.imwrite(path, GRAY, compression="deflate", rowsperstrip=8)
    content = path.read_bytes()
    for length in (0, 1, 4, 8, len(content) // 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refusal(path)


def test_random_bytes_and_other_formats_are_refused(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refusal(path)
    Image.fromarray(GRAY).save(path, "PNG")
    assert "expected an intact TIFF image" in refusal(path)
    assert "expected a readable file" in refusal(path.with_name("absent.tif"))


def test_damaged_pixels_are_refused(path):
    tifffile.imwrite(path, GRAY, compression="deflate")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset + count // 3 : offset + count // 2] = bytes(count // 2 - count // 3)
    path.write_bytes(content)
    refusal(path)


def retagged(path: Path, code: int, value: int) -> None:
    """Overwrite a tag's value in place."""
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[code]
        offset, kind = tag.valueoffset, tag.dtype
    content = bytearray(path.read_bytes())
    size = {3: 2, 4: 4}[int(kind)]
    content[offset : offset + size] = struct.pack("<H" if size == 2 else "<I", value)
    path.write_bytes(content)


def test_bomb_is_refused_by_its_header_before_a_pixel_is_unpacked(path, monkeypatch):
    tifffile.imwrite(path, np.zeros((64, 70000), np.uint8), compression="deflate")
    retagged(path, 257, 60000)  # rows
    monkeypatch.setattr(tiff, "_pixels", lambda *_: pytest.fail("pixels were unpacked"))
    assert "expected at most 1,073,741,824 bytes, got 60000 x 70000" in refusal(path)


def test_header_that_promises_more_than_the_strips_hold_is_refused(path):
    tifffile.imwrite(path, GRAY, compression="deflate", rowsperstrip=8)
    retagged(path, 257, 500)
    assert "strips or tiles" in refusal(path)


def test_several_images_in_one_file_are_refused(path):
    tifffile.imwrite(path, np.stack([GRAY, GRAY]), photometric="minisblack")
    assert "expected one image, got several pages" in refusal(path)


def test_other_color_systems_are_refused(path):
    Image.fromarray(np.concatenate([COLORS, GRAY[..., None]], axis=2), "CMYK").save(path)
    assert "SEPARATED" in refusal(path)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.array([[0, 1], [2, 255]], np.uint8), "expected a mask of two values, 0 and 255, got 0, 1, 2, 255"),
        (np.array([[7, 255], [7, 7]], np.uint8), "expected 0 as background, got the values 7 and 255"),
        (COLORS, "got colors"),
        (GRAY, "and more"),
    ],
    ids=["four values", "no zero", "colors", "a photograph"],
)
def test_what_is_no_mask_is_refused(path, pixels, reason):
    tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    assert reason in refusal(path, read_mask)


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_any_two_values_with_zero(path, value):
    tifffile.imwrite(path, MASK * np.uint8(value))
    assert np.array_equal(read_mask(path).array, MASK)
    tifffile.imwrite(path, np.repeat((MASK * np.uint8(value))[..., None], 3, axis=2), photometric="rgb")
    assert np.array_equal(read_mask(path).array, MASK)


def test_empty_and_full_masks(path):
    for value in (0, 255):
        tifffile.imwrite(path, np.full((8, 9), value, np.uint8))
        assert (read_mask(path).array == (value > 0)).all()
