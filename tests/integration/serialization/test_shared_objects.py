"""Objects of multiprocessing, and tensors in shared memory, are shared with the ranks, whatever the
start method.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory
from typing import Any

import pytest
import torch

from tests.support import shared_functions
from tests.support.launches import launch

pytestmark = pytest.mark.launch


@pytest.fixture
def memory() -> Iterator[shared_memory.SharedMemory]:
    memory = shared_memory.SharedMemory(create=True, size=2)
    yield memory
    memory.close()
    memory.unlink()  # which fails if the end of a rank has removed it


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_ranks_use_what_multiprocessing_shares_after_a_restart_too(
    method: str, memory: shared_memory.SharedMemory
) -> None:
    context: Any = multiprocessing.get_context(method)
    messages, event, value = context.Queue(), context.Event(), context.Value("i", 0)
    ours, theirs = context.Pipe()
    messages.put(("from", "here"))
    found = launch(
        shared_functions.use_all,
        *(messages, event, context.Lock(), value, theirs, memory),
        nproc=2,
        start_method=method,
        max_restarts=1,
    )
    assert found == {0: True, 1: True}
    received = {messages.get(timeout=20) for _ in range(3)}
    assert received == {("from", "here"), ("from", 0), ("from", 1)}
    assert value.value == 11
    assert ours.recv() == {"rank": 1}
    assert bytes(memory.buf[:2]) == bytes([7, 8])
    messages.close()
    messages.join_thread()


def test_a_rank_writes_into_shared_tensors_and_sends_one() -> None:
    """There are more of them than the kernel sends descriptors in one message."""
    context: Any = torch.multiprocessing.get_context("forkserver")
    tensors = [torch.zeros(1).share_memory_() for _ in range(260)]
    tensors.append(tensors[1].view(1, 1))
    module = torch.nn.Linear(2, 2).share_memory()
    sent, taken = context.Queue(), context.Event()

    def take() -> torch.Tensor:
        tensor: torch.Tensor = sent.get(timeout=60)
        taken.set()
        return tensor

    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(take)
        launch(shared_functions.write, tensors, module, sent, taken, start_method="forkserver")
        assert answer.result().tolist() == [0, 1, 2]
    assert [tensor.item() for tensor in tensors[:3]] == [0, 1 + 260, 2]
    assert tensors[259].item() == 259
    assert {number for one in module.parameters() for number in one.flatten().tolist()} == {5.0}
