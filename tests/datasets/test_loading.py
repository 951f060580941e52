import hashlib
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medexp.datasets.loading import PatchBatches, PatchLoader, VolumeLoader, worker_count
from medexp.datasets.reading import VoxelReader
from medexp.errors import ConfigurationError, ManifestError
from medexp.io.prepared import PreparedCohort
from medexp.keys import CASE, IMAGE, LABEL
from medexp.sampling.order import GlobalBatches
from medexp.sampling.patches import LabelPositions
from medexp.transforms.augmentation import Augmentation

ROOT = Path(__file__).parents[2]
EVERYTHING = Augmentation(
    flip_axes=[0, 1, 2],
    rotation_probability=0.5,
    rotation_deg=[-30.0, 30.0],
    scaling_probability=0.5,
    scaling=[0.7, 1.4],
    noise_probability=0.5,
    noise_deviation=[0.0, 0.1],
    blur_probability=0.5,
    blur_sigma_voxels=[0.5, 1.0],
    contrast_probability=0.5,
    contrast=[0.75, 1.25],
    low_resolution_probability=0.5,
    low_resolution=[0.5, 1.0],
    gamma_probability=0.5,
    gamma=[0.7, 1.5],
    keep_background=True,
)


def make_loader(
    prepared: Path, *, num_workers: int = 0, seed: int = 0, steps: int | None = None, **more: Any
) -> PatchLoader:
    cohort = PreparedCohort.open(prepared)
    train, _ = cohort.fold(0)
    batches = PatchBatches(
        cases=tuple(train),
        reader=VoxelReader((0, 1), None),
        augmentation=EVERYTHING,
        patch_size=(16, 16, 16),
        positions=LabelPositions(0.5),
        seed=seed,
    )
    order = GlobalBatches(num_cases=len(train), batch_size=3, steps_per_epoch=steps, seed=seed)
    return PatchLoader(batches, order, num_workers=num_workers, **more)


def digest(batch: dict[str, Any]) -> str:
    content = hashlib.sha256(batch[IMAGE].numpy().tobytes() + batch[LABEL].numpy().tobytes())
    content.update(repr(batch[CASE]).encode())
    return content.hexdigest()


def digests(loader: Iterable[dict[str, Any]]) -> list[str]:
    return [digest(batch) for batch in loader]


@pytest.fixture(scope="module")
def two_epochs(prepared: Path) -> list[str]:
    loader = make_loader(prepared, steps=4)
    return digests(loader) + digests(loader)


def test_batch_has_the_keys_shapes_and_types_of_the_contract(prepared: Path) -> None:
    batch = next(iter(make_loader(prepared)))
    assert (batch[IMAGE].shape, batch[IMAGE].dtype) == ((3, 2, 16, 16, 16), torch.float32)
    assert (batch[LABEL].shape, batch[LABEL].dtype) == ((3, 16, 16, 16), torch.uint8)
    assert len(batch[CASE]) == 3


def test_an_epoch_without_steps_shows_every_case_once_with_a_short_last_batch(prepared: Path) -> None:
    seen = [batch[CASE] for batch in make_loader(prepared)]
    assert [len(names) for names in seen] == [3, 1]
    assert sorted(name for names in seen for name in names) == ["case2", "case3", "case4", "case5"]


def test_the_second_epoch_differs_from_the_first(two_epochs: list[str]) -> None:
    assert len(set(two_epochs)) == 8


def test_another_seed_gives_other_batches(prepared: Path, two_epochs: list[str]) -> None:
    assert not set(digests(make_loader(prepared, seed=1, steps=4))) & set(two_epochs)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_batches_that_this_process_gives(
    prepared: Path, two_epochs: list[str], num_workers: int
) -> None:
    loader = make_loader(prepared, num_workers=num_workers, steps=4)
    assert digests(loader) + digests(loader) == two_epochs
    loader.close()


def test_forkserver_workers_give_the_same_batches(prepared: Path, two_epochs: list[str]) -> None:
    loader = make_loader(prepared, num_workers=1, steps=4, start_method="forkserver")
    assert digests(loader) == two_epochs[:4]
    loader.close()


def test_the_number_of_threads_does_not_change_a_batch(prepared: Path, two_epochs: list[str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert digests(make_loader(prepared, steps=4)) == two_epochs[:4]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_global_random_state_is_neither_used_nor_moved(prepared: Path, two_epochs: list[str]) -> None:
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 - the global state is what must stay
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert digests(make_loader(prepared, steps=4)) == two_epochs[:4]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("seen", "num_workers"), [*((seen, 0) for seen in range(9)), (3, 1), (4, 1)])
def test_resume_goes_on_after_any_batch(prepared: Path, two_epochs: list[str], seen: int, num_workers: int) -> None:
    first = make_loader(prepared, steps=4)
    for _ in islice((batch for _ in range(2) for batch in first), seen):
        pass
    resumed = make_loader(prepared, steps=4, num_workers=num_workers)
    resumed.load_state_dict(first.state_dict())
    rest = [] if seen == 8 else digests(resumed)
    assert rest == (two_epochs[seen:4] or two_epochs[max(seen, 4) : 8])
    resumed.close()


def test_state_is_plain_numbers(prepared: Path) -> None:
    loader = make_loader(prepared, steps=4)
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "batches": 1}


def test_set_epoch_jumps_and_the_present_epoch_keeps_its_place(prepared: Path, two_epochs: list[str]) -> None:
    loader = make_loader(prepared, steps=4)
    loader.batch_sampler.sampler.set_epoch(1)
    assert digests(loader) == two_epochs[4:]
    loader.load_state_dict({"epoch": 1, "batches": 3})
    loader.batch_sampler.sampler.set_epoch(1)
    assert digests(loader) == two_epochs[7:]


def test_a_broken_off_epoch_starts_anew(prepared: Path, two_epochs: list[str]) -> None:
    loader = make_loader(prepared, steps=4, num_workers=1)
    assert digests(islice(loader, 2)) == two_epochs[:2]
    assert digests(loader) == two_epochs[:4]
    loader.close()


def test_repeating_the_first_epoch_repeats_its_bytes(prepared: Path, two_epochs: list[str]) -> None:
    loader = make_loader(prepared, steps=4)
    loader.repeat_first_epoch()
    assert digests(loader) == digests(loader) == two_epochs[:4]
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_each_batch_without_loss_or_repetition(prepared: Path, world_size: int) -> None:
    whole = {
        name: image for batch in make_loader(prepared) for name, image in zip(batch[CASE], batch[IMAGE], strict=True)
    }
    shared: dict[str, torch.Tensor] = {}
    for rank in range(world_size):
        loader = make_loader(prepared)
        loader.batch_sampler.share_with(rank=rank, world_size=world_size)
        for batch in loader:
            shared.update(zip(batch[CASE], batch[IMAGE], strict=True))
    assert whole.keys() == shared.keys()
    assert all(torch.equal(whole[name], shared[name]) for name in whole)


def test_a_batch_smaller_than_the_number_of_ranks_is_refused(prepared: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"dataset\.batch_size"):
        make_loader(prepared).batch_sampler.share_with(rank=0, world_size=4)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not say who sent a signal")
@pytest.mark.parametrize("name", ["INT", "TERM", "USR1"])
def test_a_signal_to_the_whole_group_leaves_the_loaders_running(
    prepared: Path, two_epochs: list[str], name: str
) -> None:
    others = multiprocessing.active_children()  # of loaders that nobody closed; they may not have started yet
    loader = make_loader(prepared, num_workers=2, steps=4)
    batches = iter(loader)
    first = [digest(next(batches)) for _ in range(2)]  # one of each process: both have started
    workers = [str(process.pid) for process in multiprocessing.active_children() if process not in others]
    subprocess.run(["kill", f"-{name}", *workers], check=True)  # not from here: the main process may end them
    assert [*first, *map(digest, batches), *digests(loader)] == two_epochs
    loader.close()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not say who sent a signal")
def test_a_thread_that_a_library_starts_in_every_process_changes_nothing(prepared: Path, two_epochs: list[str]) -> None:
    code = (
        "import os, threading, time\n"
        "idle = lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "os.register_at_fork(after_in_child=lambda: [idle() for _ in range(20)])\n"
        "from tests.datasets.test_loading import terminated_workers_go_on\n"
        f"terminated_workers_go_on(__import__('pathlib').Path({str(prepared)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.split() == two_epochs, done.stderr


def terminated_workers_go_on(prepared: Path) -> None:
    """Print two epochs' digests, SIGTERM sent to both loader processes after the second batch."""
    loader = make_loader(prepared, num_workers=2, steps=4)
    batches = iter(loader)
    first = [digest(next(batches)) for _ in range(2)]
    for _ in range(5):
        subprocess.run(["kill", "-TERM", *(str(one.pid) for one in multiprocessing.active_children())], check=True)
    sys.stdout.write("\n".join([*first, *map(digest, batches), *digests(loader)]))
    loader.close()


def test_closing_ends_the_processes(prepared: Path) -> None:
    loader = make_loader(prepared, num_workers=2)
    next(iter(loader))
    assert len(multiprocessing.active_children()) >= 2
    loader.close()
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Process")]


def test_a_damaged_entry_without_a_way_to_rebuild_is_an_error(
    tmp_path: Path, write_prepared: Callable[..., Path]
) -> None:
    prepared = write_prepared(tmp_path)
    for image in tmp_path.glob("store/*/*/image.npy"):
        image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"image\.npy has"):
        next(iter(make_loader(prepared)))


def test_volumes_come_whole_in_order(prepared: Path) -> None:
    cohort = PreparedCohort.open(prepared)
    _, validation = cohort.fold(0)
    batches = list(VolumeLoader(validation, VoxelReader((1, 0), None)))
    assert [batch[CASE] for batch in batches] == [["case0"], ["case1"]]
    assert batches[1][IMAGE].shape == (1, 2, 12, 18, 22)
    assert np.array_equal(batches[0][IMAGE][0], np.asarray(validation[0].image())[::-1].astype(np.float32))
    assert np.array_equal(batches[0][LABEL][0], validation[0].label())


def test_workers_follow_the_cores_unless_told_otherwise() -> None:
    assert 1 <= worker_count(None) <= 8
    assert worker_count(0) == 0


def _serve_rank(prepared: Path, store: Path, rank: int, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)  # the threads of the process that this one was forked from are not here
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results.put((rank, [batch[CASE] for batch in make_loader(prepared)]))
    torch.distributed.destroy_process_group()


def test_ranks_of_a_process_group_get_their_own_shares(prepared: Path, tmp_path: Path) -> None:
    whole = [set(batch[CASE]) for batch in make_loader(prepared)]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [context.Process(target=_serve_rank, args=(prepared, tmp_path / "store", rank, results)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    shares = dict(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    assert [set(first) | set(second) for first, second in zip(shares[0], shares[1], strict=True)] == whole
    assert [len(names) for names in shares[0]] == [2, 1]
    assert [len(names) for names in shares[1]] == [1, 1]
