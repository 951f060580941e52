import numpy as np
import pytest

from medexp.errors import CaseError, GridMismatchError
from medexp.metrics.dvh import Dvh, dvh_of_contours, dvh_of_mask, dvh_points

SPACING_MM = (2.0, 2.0, 2.5)  # 0.01 cc per voxel


def dvh_of(doses: list[float]) -> Dvh:
    return Dvh(np.array(doses, dtype=np.float32), 0.01, len(doses))


def everywhere(dose_gy: np.ndarray) -> Dvh:
    dvh = dvh_of_mask(dose_gy, np.ones(dose_gy.shape, bool), SPACING_MM)
    assert dvh is not None
    return dvh


def square(low: float, high: float, k: float) -> np.ndarray:
    return np.array([[low, low, k], [high, low, k], [high, high, k], [low, high, k]])


def test_points_of_ten_voxels_are_those_worked_out_by_hand() -> None:
    dvh = dvh_of([float(dose) for dose in range(1, 11)])
    # The hottest voxel stands at 5 % of the volume, the next at 15 %: D5 = 10, D15 = 9, D10 half way.
    assert dvh.dose_at_volume_percent(5.0) == pytest.approx(10)
    assert dvh.dose_at_volume_percent(15.0) == pytest.approx(9)
    assert dvh.dose_at_volume_percent(10.0) == pytest.approx(9.5)
    assert dvh.dose_at_volume_percent(50.0) == pytest.approx(5.5)
    assert dvh.dose_at_volume_percent(98.0) == pytest.approx(1)
    assert dvh.dose_at_volume_cc(0.015) == pytest.approx(9)
    assert dvh.volume_percent_at_dose(8.0) == pytest.approx(30)
    assert dvh.volume_percent_at_dose(8.01) == pytest.approx(20)
    assert dvh.volume_cc_at_dose(0.0) == pytest.approx(0.1)
    assert dvh.volume_cc_at_dose(10.5) == 0
    assert (dvh.mean_gy, dvh.minimum_gy, dvh.maximum_gy) == (5.5, 1, 10)


@pytest.mark.parametrize("seed", range(4))
def test_points_are_those_of_sorting_all_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dose = (rng.gamma(2.0, 5.0, (30, 30, 30)) * (rng.random((30, 30, 30)) < 0.7)).astype(np.float32)  # many zeros
    dvh = everywhere(dose)
    for percent in (99.9, 98.0, 95.0, 50.0, 31.4, 5.0, 2.0, 0.1):
        expected = np.percentile(dose, 100 - percent, method="hazen")
        assert dvh.dose_at_volume_percent(percent) == pytest.approx(expected, abs=1e-5)
    for limit in (0.0, 0.5, 3.0, 10.0, 60.0):
        assert dvh.volume_percent_at_dose(limit) == pytest.approx(100 * (dose >= limit).mean())


def test_a_voxel_that_counts_twice_is_two_voxels() -> None:
    rng = np.random.default_rng(0)
    doses = np.sort(rng.normal(40, 5, 4000).astype(np.float32))
    twice = rng.random(4000) < 0.5
    weighted = Dvh(doses, np.where(twice, 0.02, 0.01), 4000)
    repeated = Dvh(np.concatenate([doses, doses[twice]]), 0.01, 6000)
    assert weighted.mean_gy == pytest.approx(repeated.mean_gy)
    assert weighted.volume_cc == pytest.approx(repeated.volume_cc)
    for percent in (98.0, 95.0, 50.0, 5.0, 2.0):
        assert weighted.dose_at_volume_percent(percent) == pytest.approx(
            repeated.dose_at_volume_percent(percent), abs=0.02
        )
    assert weighted.volume_cc_at_dose(42.0) == pytest.approx(repeated.volume_cc_at_dose(42))


def test_the_curve_passes_through_the_points() -> None:
    dvh = everywhere(np.random.default_rng(5).gamma(2.0, 5.0, (10, 10, 10)).astype(np.float32))
    limits = np.linspace(0, 40, 9)
    np.testing.assert_allclose(dvh.curve(limits), [dvh.volume_percent_at_dose(limit) for limit in limits], atol=1e-9)


def test_a_dose_that_single_precision_rounds_down_still_reaches_itself() -> None:
    dvh = everywhere(np.full((4, 4, 4), 66.6, dtype=np.float32))
    assert float(np.float32(66.6)) < 66.6
    assert dvh.volume_percent_at_dose(66.6) == 100
    assert dvh.dose_at_volume_percent(95.0) == pytest.approx(66.6)


def test_coverage_weighs_voxels_and_extremes_come_from_voxels_mostly_inside() -> None:
    dose = np.array([10.0, 20, 30, 40], dtype=np.float32).reshape(4, 1, 1)
    coverage = np.array([0, 51, 255, 204], dtype=np.uint8).reshape(4, 1, 1)
    dvh = dvh_of_mask(dose, coverage, SPACING_MM)
    assert dvh is not None
    assert dvh.volume_cc == pytest.approx(0.02)
    assert dvh.mean_gy == pytest.approx((0.2 * 20 + 30 + 0.8 * 40) / 2)
    assert (dvh.minimum_gy, dvh.maximum_gy, dvh.num_voxels) == (30, 40, 2)


def test_a_structure_smaller_than_the_volume_has_its_minimum_as_d_cc() -> None:
    assert dvh_of([3.0, 1, 2]).dose_at_volume_cc(0.1) == 1


def test_one_voxel_is_all_points_and_not_reliable() -> None:
    dvh = dvh_of([7.0])
    assert {round(value, 4) for name, value in dvh_points(dvh).items() if name.endswith("_gy")} == {7.0}
    assert not dvh.is_reliable


@pytest.mark.parametrize(("num_voxels", "is_reliable"), [(99, False), (100, True)])
def test_dvhs_are_reliable_from_a_hundred_voxels(num_voxels: int, is_reliable: bool) -> None:
    assert dvh_of([1.0] * num_voxels).is_reliable == is_reliable


def test_points_carry_their_names() -> None:
    points = dvh_points(dvh_of([10.0, 30.0]), percents=(95,), volumes_cc=(0.1,), doses_gy=(20, 66.5))
    assert points == {
        "volume_cc": pytest.approx(0.02), "dmean_gy": 20, "dmin_gy": 10, "dmax_gy": 30, "d95_gy": 10, "d0.1cc_gy": 10,
        "v20gy_percent": 50, "v20gy_cc": pytest.approx(0.01), "v66.5gy_percent": 0, "v66.5gy_cc": 0,
    }  # fmt: skip


def test_an_empty_structure_has_no_dvh() -> None:
    dose = np.ones((3, 3, 3), dtype=np.float32)
    assert dvh_of_mask(dose, np.zeros((3, 3, 3), bool), SPACING_MM) is None
    assert dvh_of_contours(dose, np.eye(4), []) is None


def test_doses_that_are_not_numbers_are_refused_inside_the_structure_only() -> None:
    dose = np.ones((3, 3, 3), dtype=np.float32)
    dose[0, 0, 0] = np.nan
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(CaseError, match="got 1 of 27 NaN or infinite"):
        dvh_of_mask(dose, mask, SPACING_MM)
    mask[0] = False
    assert dvh_of_mask(dose, mask, SPACING_MM) is not None


def test_grids_that_differ_are_refused() -> None:
    with pytest.raises(GridMismatchError, match="one grid"):
        dvh_of_mask(np.ones((3, 3, 3), np.float32), np.ones((3, 3, 4), bool), SPACING_MM)


@pytest.mark.parametrize("percent", [-1.0, 101.0])
def test_shares_beyond_the_structure_are_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 100 percent"):
        dvh_of([1.0]).dose_at_volume_percent(percent)


def test_negative_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 cc or more"):
        dvh_of([1.0]).dose_at_volume_cc(-1.0)


def test_a_dose_grid_that_does_not_cover_the_structure_is_refused_with_the_share() -> None:
    contours = [square(1, 13, k) for k in (1.0, 2.0, 3.0)]
    dose = np.full((11, 20, 6), 5.0, dtype=np.float32)  # ends at 10.5: 2.5 of 12 mm are beyond
    with pytest.raises(CaseError, match=r"none for 0\.0\d+ of 0\.432 cc \(21 %\)"):
        dvh_of_contours(dose, np.eye(4), contours, end_reach=0.5)
    dvh = dvh_of_contours(dose, np.eye(4), contours, outside_gy=0.0)
    assert dvh is not None
    assert dvh.volume_percent_at_dose(5.0) == pytest.approx(100 * 9.5 / 12, abs=0.5)


def test_a_dose_that_is_not_a_number_within_contours_is_refused() -> None:
    dose = np.full((20, 20, 6), 5.0, dtype=np.float32)
    dose[5, 5, 2] = np.nan
    with pytest.raises(CaseError, match="expected finite doses"):
        dvh_of_contours(dose, np.eye(4), [square(1, 13, 2.0)])


def test_dvhs_leave_the_dose_as_it_was() -> None:
    dose = np.random.default_rng(0).random((6, 6, 6)).astype(np.float32)
    before = dose.copy()
    dvh_points(everywhere(dose), doses_gy=(0.5,))
    np.testing.assert_array_equal(dose, before)


def test_a_constant_dose_stays_constant_in_divided_voxels() -> None:
    mask = np.random.default_rng(0).random((6, 6, 6)) < 0.5
    dvh = dvh_of_mask(np.full((6, 6, 6), 3.5, np.float32), mask, SPACING_MM, num_samples=1000)
    assert dvh is not None
    assert (dvh.minimum_gy, dvh.maximum_gy, dvh.num_voxels) == (3.5, 3.5, mask.sum())
    assert dvh.volume_cc == pytest.approx(0.01 * mask.sum())


def test_voxels_cannot_be_divided_into_none() -> None:
    with pytest.raises(CaseError, match="num_samples=0"):
        dvh_of_mask(np.ones((3, 3, 3), np.float32), np.ones((3, 3, 3), bool), SPACING_MM, num_samples=0)
