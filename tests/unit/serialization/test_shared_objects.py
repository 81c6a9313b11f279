"""What can only be shared is shared or refused by name, and never copied in silence."""

from __future__ import annotations

import json
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import torch

from llutil.errors import EntrypointError
from llutil.serialization import shared_objects
from llutil.serialization.functions import pickle_arguments, pickle_call
from llutil.serialization.shared_objects import (
    SharedDescriptor,
    SharedObjects,
    receive,
    received_closed,
)

SPAWN = multiprocessing.get_context("spawn")
KINDS: dict[str, Callable[[], Any]] = {
    "queue": SPAWN.Queue,
    "simple queue": SPAWN.SimpleQueue,
    "event": SPAWN.Event,
    "lock": SPAWN.Lock,
    "barrier": lambda: SPAWN.Barrier(2),
    "value": lambda: SPAWN.Value("i", 0),
    "array": lambda: SPAWN.Array("d", 3),
    "connection": lambda: SPAWN.Pipe()[0],
    "torch's queue": torch.multiprocessing.get_context("spawn").Queue,
    "tensor": lambda: torch.zeros(2).share_memory_(),
    "module": lambda: torch.nn.Linear(2, 2).share_memory(),
}


def train(*values: Any) -> None:
    """A function that gets them."""


@pytest.fixture
def shared() -> Iterator[SharedObjects]:
    with closing(SharedObjects()) as shared:
        yield shared


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_a_task_cannot_share_is_refused_by_name(make: Callable[[], Any]) -> None:
    for refused in (
        lambda value: pickle_call(train, [1, value]),
        lambda v: pickle_arguments([1, v]),
    ):
        with pytest.raises(EntrypointError) as caught:
            refused(make())
        text = str(caught.value)
        assert "argument 1" in text
        assert "can be shared only with ranks that launch_agent starts" in text
        assert "In an Airflow task use" in text


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_launcher_shares_it(make: Callable[[], Any], shared: SharedObjects) -> None:
    assert pickle_call(train, [make()], {}, shared).payload
    assert shared.used


def test_plain_values_and_tensors_share_nothing(shared: SharedObjects) -> None:
    pickle_call(train, [torch.zeros(2), torch.nn.Linear(2, 2), {"lr": 0.1}], {}, shared)
    assert not shared.used


def test_an_object_of_another_start_method_is_refused_by_name(shared: SharedObjects) -> None:
    queue = multiprocessing.get_context("fork").Queue()
    with pytest.raises(
        EntrypointError, match=r"argument 0 \(a multiprocessing.queues.Queue object"
    ):
        pickle_call(train, [queue], {}, shared)


def test_a_tensor_that_ranks_cannot_join_is_refused_by_name(
    shared: SharedObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    mapped = torch.from_file(str(tmp_path / "file"), shared=True, size=4)
    with pytest.raises(EntrypointError, match=r"maps a file .* call torch.from_file in the rank"):
        pickle_call(train, [mapped], {}, shared)
    named = torch.zeros(1).share_memory_()
    monkeypatch.setattr(torch.multiprocessing, "_sharing_strategy", "file_system")
    with pytest.raises(EntrypointError, match=r"call torch.multiprocessing.set_sharing_strategy"):
        pickle_call(train, [named], {}, shared)


def test_outside_a_rank_what_is_shared_cannot_be_loaded() -> None:
    with pytest.raises(RuntimeError, match="only by a rank, not by a child process of it"):
        SharedDescriptor(0).detach()


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, int]]:
    """A sender that stays open, and the descriptor for ``receive``, which closes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, received_closed():
        yield ours, theirs.detach()


def send_one(sender: socket.socket, *, count: int) -> None:
    """Send one descriptor, and say that there are ``count``."""
    key = multiprocessing.current_process().authkey.hex()
    header = {"key": key, "tracker": False, "count": count}
    socket.send_fds(sender, [json.dumps(header).encode()], [2])


def test_a_rank_waits_for_no_more_than_there_is(channel: tuple[socket.socket, int]) -> None:
    sender, fd = channel
    send_one(sender, count=1)
    receive(fd)
    assert len(shared_objects._received) == 1


@pytest.mark.parametrize("closed", [True, False])
def test_a_rank_that_does_not_get_all_says_so(
    channel: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(shared_objects, "_PATIENCE", 0.01)
    sender, fd = channel
    send_one(sender, count=3)
    if closed:
        sender.close()
    with pytest.raises(OSError, match="1 of 3 descriptors came.*ulimit -n" if closed else "timed"):
        receive(fd)
