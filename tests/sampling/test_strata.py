import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.errors import ConfigurationError
from medexp.sampling.strata import SIDES, hold_out, stratum_of

EDGES = (0.0, 0.01, 0.1, 0.5, 1.0)
SHARES = (0.6, 0.2, 0.2)


def split(groups, coverage=None, **changes):
    given = {"shares": SHARES, "edges": EDGES, "seed": 42, **changes}
    return hold_out(groups, coverage or dict.fromkeys(groups, 0.2), **given)


def singles(count):
    return {f"w{number:02d}": f"w{number:02d}" for number in range(count)}


@pytest.mark.parametrize(("count", "sizes"), [(6, (3, 1, 2)), (10, (6, 2, 2)), (5, (3, 1, 1)), (54, (32, 10, 12))])
def test_sizes_are_those_of_segoid(count, sizes):
    sides = split(singles(count))
    assert tuple(len(sides[side]) for side in SIDES) == sizes


def test_no_test_share_no_test_images():
    sides = split(singles(10), shares=(0.8, 0.2, 0.0))
    assert [len(sides[side]) for side in SIDES] == [8, 2, 0]


@pytest.mark.parametrize(
    ("coverage", "stratum"), [(0.0, 1), (0.005, 1), (0.01, 2), (0.1, 3), (0.49, 3), (0.5, 4), (1.0, 4)]
)
def test_strata(coverage, stratum):
    assert stratum_of(coverage, EDGES) == stratum


def test_every_side_gets_its_part_of_every_stratum():
    groups = singles(40)
    coverage = {case: (0.005, 0.05, 0.3, 0.7)[number % 4] for number, case in enumerate(groups)}
    sides = split(groups, coverage)
    for value in set(coverage.values()):
        counts = [sum(coverage[case] == value for case in sides[side]) for side in SIDES]
        assert abs(counts[0] - 6) <= 1
        assert abs(counts[1] - 2) <= 1
        assert abs(counts[2] - 2) <= 1


@given(sizes=st.lists(st.integers(1, 4), min_size=6, max_size=25), seed=st.integers(0, 5))
def test_groups_stay_whole_and_every_case_is_somewhere(sizes, seed):
    groups = {f"{group}_{well}": f"g{group}" for group, size in enumerate(sizes) for well in range(size)}
    sides = split(groups, seed=seed)
    assert sorted(case for cases in sides.values() for case in cases) == sorted(groups)
    where = {
        group: {side for side in SIDES for case in sides[side] if groups[case] == group} for group in groups.values()
    }
    assert all(len(found) == 1 for found in where.values())


def test_order_of_the_cases_does_not_matter_and_another_seed_does():
    groups = singles(20)
    assert split(groups) == split(dict(reversed(groups.items())))
    assert len({tuple(split(groups, seed=seed)["test"]) for seed in range(6)}) > 1


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (1.2, -0.2, 0.0), (1.0,)])
def test_shares_must_be_shares(shares):
    with pytest.raises(ConfigurationError, match="holdout_shares"):
        split(singles(6), shares=shares)


def test_too_few_groups_are_refused():
    with pytest.raises(ConfigurationError, match="2 groups do not fill them"):
        split(singles(2))
