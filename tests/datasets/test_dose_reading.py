import hashlib
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.datasets.dose_reading import DosePatches, DoseReader
from medexp.datasets.loading import PatchLoader
from medexp.errors import ManifestError
from medexp.io.prepared import PreparedCohort, StoredCase
from medexp.keys import CASE, CONSTRAINTS, DOSE, IMAGE, POSSIBLE
from medexp.sampling.order import GlobalBatches, SampleKey
from medexp.sampling.patches import HighDosePositions
from medexp.transforms.dose_augmentation import DoseAugmentation, DoseDraw

SIZE = (16, 16, 16)
RX_GY = 70.0
STRAIGHT, EXCHANGED = (0, 1, 2), (0, 2, 1)  # PTV70, Femur_L, Femur_R
PLAIN = DoseAugmentation(
    flip_probability=0.0,
    translation_probability=0.0,
    translation_voxels=0,
    rotation_probability=0.0,
    rotation_deg=0.0,
    noise_probability=0.0,
    noise_deviation=0.0,
)
EVERYTHING = DoseAugmentation(
    flip_probability=0.5,
    translation_probability=0.5,
    translation_voxels=4,
    rotation_probability=0.5,
    rotation_deg=5.0,
    noise_probability=0.5,
    noise_deviation=0.02,
)
STARTS = [(0, 0, 0), (8, 4, 2), (-5, 1, 2), (12, 9, 7)]


def reader() -> DoseReader:
    return DoseReader(STRAIGHT, EXCHANGED, prescription_gy=RX_GY)


@pytest.fixture(scope="module")
def case(planned: Path) -> StoredCase:
    return PreparedCohort.open(planned).case("patient0")


def patch(case: StoredCase, start: tuple[int, ...], draw: DoseDraw = DoseDraw()) -> tuple[np.ndarray, np.ndarray]:  # noqa: B008 - frozen
    image, dose = torch.full((4, *SIZE), torch.nan), torch.full((1, *SIZE), torch.nan)
    reader().read_patch(case, image, dose, start=start, draw=draw)
    return image.numpy(), dose.numpy()


def padded(case: StoredCase) -> tuple[np.ndarray, np.ndarray]:
    """Return CT and distances, and dose, of the volume in the middle of air, by the formulas of the conventions."""
    ct = np.asarray(case.image(), np.float64).clip(-1000.0, 3000.0) / 4000.0 + 0.5
    margins = [(0, 0), *[(30, 30)] * 3]
    ct = np.pad(ct, margins, constant_values=0.25)
    distances = np.pad(np.asarray(case.distances(), np.float64), margins, constant_values=1.0)
    return np.concatenate([ct, distances]), np.pad(np.asarray(case.dose(), np.float64) / RX_GY, margins)


def window(start: tuple[int, ...]) -> tuple[slice, ...]:
    return (slice(None), *(slice(first + 30, first + 30 + size) for first, size in zip(start, SIZE, strict=True)))


@pytest.mark.parametrize("start", STARTS)
def test_a_patch_is_the_normalized_volume_in_the_middle_of_air(case: StoredCase, start: tuple[int, ...]) -> None:
    image, dose = patch(case, start)
    whole_image, whole_dose = padded(case)
    assert image == pytest.approx(whole_image[window(start)], abs=1e-6)
    assert dose == pytest.approx(whole_dose[window(start)], abs=1e-6)


@pytest.mark.parametrize("start", STARTS)
def test_a_flip_exchanges_left_and_right_and_the_femurs_and_nothing_else(
    case: StoredCase, start: tuple[int, ...]
) -> None:
    image, dose = patch(case, start, DoseDraw(is_mirrored=True))
    straight_image, straight_dose = patch(case, start)
    assert np.array_equal(dose, straight_dose[:, ::-1])
    ct, ptv, left, right = straight_image[:, ::-1]
    assert np.array_equal(image, np.stack([ct, ptv, right, left]))


def test_after_a_flip_the_left_femur_is_on_the_left_again(case: StoredCase) -> None:
    """What a network learns of sides stays true: axis 0 of RAS+ rises from left to right."""
    for draw in (DoseDraw(), DoseDraw(is_mirrored=True)):
        wide = replace(case, shape=case.shape)
        image, dose = torch.empty((4, *case.shape)), torch.empty((1, *case.shape))
        reader().read_patch(wide, image, dose, start=(0, 0, 0), draw=draw)
        left, right = (np.argwhere(channel.numpy() < 0)[:, 0].mean() for channel in image[2:])
        assert left < case.shape[0] / 2 < right


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_turn_by_nothing_is_a_copy(case: StoredCase, start: tuple[int, ...], is_mirrored: bool) -> None:
    turned = patch(case, start, DoseDraw(is_mirrored=is_mirrored, angle_deg=0.0))
    copied = patch(case, start, DoseDraw(is_mirrored=is_mirrored))
    assert all(np.array_equal(one, other) for one, other in zip(turned, copied, strict=True))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_turned_patch_is_scipys_turn_of_the_volume_in_air(
    case: StoredCase, start: tuple[int, ...], is_mirrored: bool
) -> None:
    """Pixels are square here; CT, distances and dose turn about the patch's center in the plane of i and j."""
    image, dose = patch(case, start, DoseDraw(is_mirrored=is_mirrored, angle_deg=5.0))
    cos, sin = np.cos(np.deg2rad(5.0)), np.sin(np.deg2rad(5.0))
    matrix = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    if is_mirrored:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    center = np.array(SIZE) / 2.0 - 0.5
    offset = np.array(start) + 30 + center - matrix @ center
    whole_image, whole_dose = padded(case)
    order = [0, 1, 3, 2] if is_mirrored else [0, 1, 2, 3]
    for found, whole in (*zip(image, whole_image[order], strict=True), (dose[0], whole_dose[0])):
        expected = ndimage.affine_transform(whole, matrix, offset, output_shape=SIZE, order=1)
        assert found == pytest.approx(expected, abs=2e-5)


def test_the_sign_of_turned_distances_is_the_turned_mask() -> None:
    """On a finer grid than the tests' others: masks that are turned themselves differ at their surface only."""
    axes = np.indices((64, 64, 3)) - np.array([30.0, 33.0, 1.0]).reshape(3, 1, 1, 1)
    distance = np.hypot(axes[0] / 20.0, axes[1] / 11.0) - 1.0  # an ellipse
    from medexp.transforms.in_plane import PlaneTaps, resample_planes
    from medexp.transforms.spatial import centered_offset

    matrix = DoseDraw(angle_deg=5.0).in_plane([1.0, 1.0, 1.0])
    taps = PlaneTaps.of(matrix, centered_offset(matrix, start=(0, 0), size=(64, 64)), size=(64, 64), shape=(64, 64))
    out = torch.empty((64, 64, 3))
    resample_planes(torch.from_numpy(distance.astype(np.float32)), out, taps, outside=1.0)
    mask = ndimage.rotate((distance < 0).astype(np.float32), 5.0, axes=(0, 1), reshape=False, order=1) > 0.5
    found = out.numpy() < 0
    disagreeing = found != mask
    assert disagreeing.mean() < 0.01
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.98
    near = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
    assert not (disagreeing & ~near).any()


def test_noise_changes_the_ct_and_nothing_else(case: StoredCase) -> None:
    image, dose = patch(case, (8, 4, 2), DoseDraw(noise=0.02, noise_seed=9))
    straight_image, straight_dose = patch(case, (8, 4, 2))
    assert np.array_equal(image[1:], straight_image[1:])
    assert np.array_equal(dose, straight_dose)
    inside = (straight_image[0] > 0.35) & (straight_image[0] < 1.15)  # where nothing is clipped
    assert (image[0] - straight_image[0])[inside].std() == pytest.approx(0.02, rel=0.1)


def test_distances_are_negative_exactly_inside(case: StoredCase) -> None:
    whole = reader().inputs(case)[IMAGE].numpy()
    middle = case.shape[0] // 2
    expected = np.zeros(case.shape, bool)
    expected[middle - 3 : middle + 3, 6:13, 5:12] = True
    assert np.array_equal(whole[1] < 0, expected)


def test_a_case_without_a_dose_has_inputs_all_the_same(planned: Path) -> None:
    unplanned = PreparedCohort.open(planned).case("patient6")
    inputs = reader().inputs(unplanned)
    assert inputs.keys() == {IMAGE, CONSTRAINTS, POSSIBLE}
    assert inputs[POSSIBLE].shape == unplanned.shape
    assert inputs[IMAGE].shape == (4, *unplanned.shape)
    assert inputs[CONSTRAINTS].tolist() == pytest.approx([6.0, *np.linspace(0.0, 1.0, 12)])
    with pytest.raises(ManifestError, match="patient6: expected a dose"):
        reader().whole(unplanned)


def test_a_whole_case_is_a_batch_of_one_in_the_terms_of_the_contract(case: StoredCase) -> None:
    batch = reader().whole(case)
    shape = (1, *case.shape)
    assert {key: (tuple(batch[key].shape), batch[key].dtype) for key in (IMAGE, DOSE, POSSIBLE, CONSTRAINTS)} == {
        IMAGE: ((1, 4, *case.shape), torch.float32),
        DOSE: ((1, *shape), torch.float32),
        POSSIBLE: (shape, torch.bool),
        CONSTRAINTS: ((1, 13), torch.float32),
    }
    assert batch[CASE] == ["patient0"]
    assert np.array_equal(batch[POSSIBLE][0].numpy(), np.asarray(case.possible()) > 0)
    assert np.array_equal(batch[DOSE][0].numpy(), np.asarray(case.dose()) / np.float32(RX_GY))


def test_a_reader_travels_without_its_mapped_files(case: StoredCase) -> None:
    before = reader()
    image = before.inputs(case)[IMAGE]
    assert len(before.files) == 2
    copied = pickle.loads(pickle.dumps(before))
    assert not len(copied.files)
    assert torch.equal(copied.inputs(case)[IMAGE], image)


def make_batches(planned: Path, *, seed: int = 0, augmentation: DoseAugmentation = EVERYTHING) -> DosePatches:
    train, _ = PreparedCohort.open(planned).fold(1)  # patient1, who is narrower than a patch, trains
    return DosePatches(
        cases=tuple(train),
        reader=reader(),
        augmentation=augmentation,
        patch_size=SIZE,
        positions=HighDosePositions(0.5),
        seed=seed,
    )


def make_loader(planned: Path, *, num_workers: int = 0, seed: int = 0) -> PatchLoader:
    order = GlobalBatches(num_cases=2, batch_size=3, steps_per_epoch=4, seed=seed)
    return PatchLoader(make_batches(planned, seed=seed), order, num_workers=num_workers)


def digests(loader: Iterable[dict[str, Any]]) -> list[str]:
    found = []
    for batch in loader:
        content = hashlib.sha256(repr(batch[CASE]).encode())
        for key in (IMAGE, DOSE, CONSTRAINTS):
            content.update(batch[key].numpy().tobytes())
        found.append(content.hexdigest())
    return found


@pytest.fixture(scope="module")
def two_epochs(planned: Path) -> list[str]:
    loader = make_loader(planned)
    return digests(loader) + digests(loader)


def test_every_batch_of_two_epochs_is_another_one(two_epochs: list[str]) -> None:
    assert len(set(two_epochs)) == 8


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_batches_that_this_process_gives(
    planned: Path, two_epochs: list[str], num_workers: int
) -> None:
    loader = make_loader(planned, num_workers=num_workers)
    assert digests(loader) + digests(loader) == two_epochs
    loader.close()


def test_threads_and_global_random_state_do_not_matter(planned: Path, two_epochs: list[str]) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(11)
    torch.set_num_threads(3)
    try:
        assert digests(make_loader(planned)) == two_epochs[:4]
    finally:
        torch.set_num_threads(threads)


def test_a_sample_is_a_function_of_seed_and_key_whatever_the_batch(planned: Path) -> None:
    keys = [SampleKey(2, index, index % 2) for index in range(6)]
    together = make_batches(planned).__getitems__(keys)
    for row, key in enumerate(keys):
        alone = make_batches(planned).__getitems__([key])
        assert all(torch.equal(together[name][row], alone[name][0]) for name in (IMAGE, DOSE, CONSTRAINTS))
    assert not torch.equal(make_batches(planned, seed=1).__getitems__(keys)[IMAGE], together[IMAGE])


def test_a_moved_patch_shows_voxels_of_the_volume_and_no_fill(planned: Path) -> None:
    """Every patch is a window of the volume, found by its dose, and only its place differs from one not moved."""
    moving = replace(EVERYTHING, flip_probability=0.0, rotation_probability=0.0, translation_probability=1.0)
    moved, still = (make_batches(planned, augmentation=one) for one in (replace(moving, noise_probability=0.0), PLAIN))
    case = moved.cases[0]
    whole = np.asarray(case.dose())[0] / np.float32(RX_GY)
    num_moved = 0
    for index in range(30):
        key = SampleKey(0, index, 0)
        start = moved.start(key)
        assert all(0 <= first <= length - 16 for first, length in zip(start, case.shape, strict=True))
        assert all(abs(one - other) <= 4 for one, other in zip(start, still.start(key), strict=True))
        batch = moved.__getitems__([key])
        assert np.array_equal(batch[DOSE][0, 0], whole[tuple(slice(first, first + 16) for first in start)])
        num_moved += start != still.start(key)
    assert num_moved > 20


def test_a_volume_narrower_than_a_patch_is_shown_whole_with_air_beside(planned: Path) -> None:
    moving = replace(PLAIN, translation_probability=1.0, translation_voxels=16)
    batches = make_batches(planned, augmentation=moving)
    case = batches.cases[1]
    assert case.shape[0] == 12
    starts = set()
    for index in range(20):
        key = SampleKey(0, index, 1)
        start = batches.start(key)
        image = batches.__getitems__([key])[IMAGE][0].numpy()
        assert -4 <= start[0] <= 0
        inside = slice(-start[0], -start[0] + 12)
        around = np.delete(image, range(inside.start, inside.stop), axis=1)
        assert (around[0] == 0.25).all()
        assert (around[1:] == 1.0).all()
        window = (slice(None), *(slice(first, first + 16) for first in start[1:]))
        assert np.array_equal(image[1, inside], np.asarray(case.distances())[0][window].astype(np.float32))
        starts.add(start[0])
    assert len(starts) > 1


def test_half_of_the_patches_are_centered_on_a_high_dose(planned: Path) -> None:
    """The volume is long enough along i that a chance patch's center seldom is one of the rows."""
    case = PreparedCohort.open(planned).case("patient0")
    rows = np.asarray(case.high_dose())[:, 1:]
    positions = HighDosePositions(0.5)
    small = (2, 2, 2)
    drawn = [positions.start(np.random.default_rng(seed), case, patch_size=small) for seed in range(1000)]
    high = {tuple(int(value) for value in row) for row in rows}
    share = sum(tuple(first + 1 for first in start) in high for start in drawn) / 1000
    by_chance = len(high) / np.prod(case.shape)
    assert share == pytest.approx(0.5 + 0.5 * by_chance, abs=0.05)


def test_a_damaged_entry_without_a_way_to_rebuild_is_an_error(
    tmp_path: Path, write_planned: Callable[..., Path]
) -> None:
    batches = make_batches(write_planned(tmp_path))
    for file in tmp_path.glob("store/*/*/distances.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"distances\.npy has"):
        batches.__getitems__([SampleKey(0, 0, 0)])
