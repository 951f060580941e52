import pytest

from medexp.errors import ConfigurationError
from medexp.sampling.order import GlobalBatches, SampleKey, order_of_epoch, share_of_rank


def batches(**more: int | None) -> GlobalBatches:
    return GlobalBatches(**{"num_cases": 7, "batch_size": 3, "steps_per_epoch": None, "seed": 0, **more})


def cases_of(order: GlobalBatches) -> list[int]:
    return [key.case for batch in order for key in batch]


def test_every_case_comes_once_per_epoch_with_a_short_last_batch() -> None:
    order = batches()
    assert [len(batch) for batch in order] == [3, 3, 1]
    assert sorted(cases_of(order)) == list(range(7))
    assert len(order) == 3


def test_epochs_are_shuffled_differently_and_reproducibly() -> None:
    first, second = (order_of_epoch(num_cases=50, num_samples=50, seed=0, epoch=epoch).tolist() for epoch in (0, 1))
    assert first != second
    assert first == order_of_epoch(num_cases=50, num_samples=50, seed=0, epoch=0).tolist()


def test_more_steps_than_cases_visit_all_cases_before_any_comes_again() -> None:
    order = batches(steps_per_epoch=5)
    found = cases_of(order)
    assert len(order) == 5
    assert sorted(found[:7]) == sorted(found[7:14]) == list(range(7))
    assert found[:7] != found[7:14]


def test_indices_count_through_the_epoch() -> None:
    assert [key.index for batch in batches() for key in batch] == list(range(7))


def test_a_sample_does_not_depend_on_the_batch_size() -> None:
    assert cases_of(batches(batch_size=2)) == cases_of(batches(batch_size=5))


def test_iteration_starts_at_the_first_unseen_batch() -> None:
    order = batches()
    whole = list(order)
    order.sampler.first_batch = 2
    assert list(order) == whole[2:]


def test_setting_another_epoch_goes_to_its_start() -> None:
    order = batches()
    order.sampler.first_batch = 2
    order.sampler.set_epoch(4)
    assert [key.epoch for batch in order for key in batch] == [4] * 7


def test_setting_the_present_epoch_keeps_the_place() -> None:
    order = batches()
    order.sampler.first_batch = 2
    order.sampler.set_epoch(0)
    assert len(list(order)) == 1


def test_a_frozen_order_shows_the_first_epoch_for_ever() -> None:
    order = batches()
    whole = list(order)
    order.sampler.frozen = True
    order.sampler.set_epoch(3)
    assert list(order) == whole


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_have_every_sample(world_size: int) -> None:
    whole = [set(batch) for batch in batches()]
    shares = []
    for rank in range(world_size):
        order = batches()
        order.share_with(rank=rank, world_size=world_size)
        shares.append(list(order))
    assert [set().union(*parts) for parts in zip(*shares, strict=True)] == whole


def test_a_rank_without_a_sample_repeats_one() -> None:
    keys = [SampleKey(0, 6, 2)]
    assert share_of_rank(keys, rank=1, world_size=2) == keys


def test_fewer_samples_than_ranks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"dataset\.batch_size.*4 devices"):
        batches().share_with(rank=0, world_size=4)
