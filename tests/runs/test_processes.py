"""Work in processes gives what work in this one gives, and a killed process is an error."""

import os
import signal

import pytest

from medexp.runs.processes import ProcessDiedError, for_each


def squared(value: int) -> int:
    return value * value


def process_of(_: int) -> int:
    return os.getpid()


def fail(value: int) -> int:
    raise ValueError(f"bad {value}")


def killed(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_every_item_is_done_once_with_its_index():
    assert dict(for_each(squared, [3, 1, 2], num_workers=2, what="done")) == {0: 9, 1: 1, 2: 4}


def test_one_worker_starts_no_process():
    assert {pid for _, pid in for_each(process_of, [1, 2], num_workers=1, what="done")} == {os.getpid()}


def test_two_workers_are_other_processes():
    assert os.getpid() not in {pid for _, pid in for_each(process_of, [1, 2], num_workers=2, what="done")}


def test_no_items_are_no_work():
    assert list(for_each(squared, [], num_workers=2, what="done")) == []


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(ValueError, match="bad"):
        list(for_each(fail, [1, 2], num_workers=2, what="done"))


def test_a_killed_process_is_named_with_the_key_to_lower():
    with pytest.raises(ProcessDiedError, match=r"hardware\.num_workers=1"):
        list(for_each(killed, [1, 2], num_workers=2, what="done"))
