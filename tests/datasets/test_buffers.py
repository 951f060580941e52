import copy
import gc

import numpy as np
import torch

from medexp.datasets.buffers import Recycler, empty

SHAPE = (2, 3, 4)


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    memory = Recycler()
    first = memory.lend(SHAPE)
    address = first.data_ptr()
    del first
    assert memory.lend(SHAPE).data_ptr() == address


def test_a_held_batch_is_never_overwritten() -> None:
    memory = Recycler()
    held = [memory.lend(SHAPE).fill_(number) for number in range(5)]
    assert len({tensor.data_ptr() for tensor in held}) == 5
    assert [float(tensor.mean()) for tensor in held] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_view_an_array_or_a_detached_tensor_holds_the_memory_too() -> None:
    memory = Recycler()
    for part in (lambda whole: whole[0, :, 1], lambda whole: whole.numpy(), lambda whole: whole.view(-1).detach()):
        shown = part(memory.lend(SHAPE).fill_(7.0))
        gc.collect()
        memory.lend(SHAPE).fill_(1.0)
        assert float(np.asarray(shown).mean()) == 7.0


def test_other_shapes_get_other_memory() -> None:
    memory = Recycler()
    assert memory.lend((2, 2)).shape == (2, 2)
    assert memory.lend((4,)).shape == (4,)


def test_a_copy_starts_with_nothing() -> None:
    memory = Recycler()
    memory.lend(SHAPE)
    copied = copy.copy(memory)
    assert copied.lend(SHAPE).data_ptr() != memory.lend(SHAPE).data_ptr()


def test_empty_has_shape_and_type() -> None:
    tensor = empty((2, 5), np.uint8)
    assert (tensor.shape, tensor.dtype) == ((2, 5), torch.uint8)
