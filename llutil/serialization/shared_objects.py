"""Objects that a launching process and its ranks share: multiprocessing's, and tensors in shared
memory.

Such an object is no value that can be copied: a queue without its pipe is nothing, and a copy of a
shared tensor shows nobody what a rank wrote. multiprocessing pickles it only for a child that gets
descriptors too. Here ``SharedObjects`` collects these descriptors while a call is pickled, and
sends them to each rank over a socket of its own. ``receive`` takes them there. Where ranks are not
started by the process that pickles the call, as in an Airflow task, such an object is refused.

This module may import the standard library alone. It reads torch and multiprocessing only where
they have been imported already.
"""

# ruff: noqa: SLF001 - multiprocessing has no public functions for what its own spawn does here

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["SharedDescriptor", "SharedObjects", "receive", "received_closed", "refuse_or_reduce"]

# Descriptors in one message. The kernel takes at most 253.
_BATCH = 200
_LONGEST = 1 << 12
# Seconds. All messages have been sent when a rank starts.
_PATIENCE = 60.0
_SHARING_MODULES = (
    "multiprocessing.connection",
    "multiprocessing.heap",
    "multiprocessing.queues",
    "multiprocessing.sharedctypes",
    "multiprocessing.synchronize",
    "torch.multiprocessing.queue",
)
_ONLY_HERE = (
    "can be shared only with ranks that launch_agent starts from this very process. In an Airflow "
    "task use what torch.distributed, a file or a store offers"
)

_received: list[int] = []
"""The descriptors that this rank received, while it loads its call."""


class SharedDescriptor:
    """Stands in a pickle for the descriptor with this number among those that a rank receives."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """A descriptor of the caller's own; multiprocessing calls this in the rank."""
        if self.index >= len(_received):
            raise RuntimeError(
                "an object that the launching process shares with its ranks can be loaded only by "
                "a rank, not by a child process of it"
            )
        return os.dup(_received[self.index])


class SharedObjects:
    """The descriptors of one call. While it pickles, multiprocessing takes this object for the
    child process that is being started.
    """

    DupFd = SharedDescriptor

    def __init__(self) -> None:
        self.used = False
        """Whether the call has an object that is shared."""
        self._fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """The number that ``fd`` has among the descriptors; multiprocessing calls this."""
        self.used = True
        self._fds.append(os.dup(fd))
        return len(self._fds) - 1

    @contextmanager
    def pickling(self) -> Iterator[None]:
        """Let multiprocessing's objects be pickled inside the block."""
        from multiprocessing import context

        popen: Any = self
        before = context.get_spawning_popen()
        context.set_spawning_popen(popen)
        try:
            yield
        finally:
            context.set_spawning_popen(before)

    def new_channel(self) -> int:
        """A descriptor for one rank, from which it can ``receive``. The caller closes it."""
        from multiprocessing import process, resource_tracker

        tracker = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
        fds = [*self._fds, *([] if tracker is None else [tracker])]
        key = process.current_process().authkey.hex()
        header = {"key": key, "tracker": tracker is not None, "count": len(fds)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            socket.send_fds(ours, [json.dumps(header).encode()], fds[:_BATCH])
            for begin in range(_BATCH, len(fds), _BATCH):
                socket.send_fds(ours, [b"more"], fds[begin : begin + _BATCH])
        return theirs.detach()

    def close(self) -> None:
        """Close the descriptors."""
        while self._fds:
            os.close(self._fds.pop())


def receive(channel_fd: int) -> None:
    """Take what ``new_channel`` sent, and become a process that shares multiprocessing's objects
    with the launching one, as a child of multiprocessing would.

    :raises OSError: not all descriptors came.
    """
    from multiprocessing import process, resource_tracker

    _received.clear()
    with socket.socket(fileno=channel_fd) as channel:
        channel.settimeout(_PATIENCE)
        data, fds, _, _ = socket.recv_fds(channel, _LONGEST, _BATCH)
        _received.extend(fds)
        header = json.loads(data)
        while fds and len(_received) < header["count"]:
            _, fds, _, _ = socket.recv_fds(channel, _LONGEST, _BATCH)
            _received.extend(fds)
    for fd in _received:
        os.set_inheritable(fd, False)
    if len(_received) < header["count"]:
        # The kernel gives only as many as the process may open, and says nothing else.
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise OSError(
            f"{len(_received)} of {header['count']} descriptors came, and it may have {most} open "
            "files: raise that limit (ulimit -n)"
        )
    process.current_process().authkey = bytes.fromhex(header["key"])
    if header["tracker"]:
        # With a tracker of its own a rank's end would remove shared memory that others use.
        tracker: Any = resource_tracker._resource_tracker
        tracker._fd, tracker._pid = _received.pop(), None


@contextmanager
def received_closed() -> Iterator[None]:
    """Close the received descriptors after the block, in which what needs them is loaded."""
    try:
        yield
    finally:
        while _received:
            os.close(_received.pop())


def refuse_or_reduce(value: Any, shared: SharedObjects | None) -> Any:
    """How to pickle ``value``, if it is an object that is shared; else ``NotImplemented``.

    :raises TypeError: it can only be shared, and ``shared`` is None; or it is shared in a way that
        ranks cannot take part in.
    """
    kind = type(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor | torch.UntypedStorage):
        return _reduce_tensor(value, torch, shared)
    if torch is not None and isinstance(value, torch.storage.TypedStorage):
        untyped = value._untyped_storage
        if not _is_shared(untyped) or shared is None:
            return NotImplemented
        return torch.multiprocessing.reductions.reduce_typed_storage(value)
    reduction = sys.modules.get("multiprocessing.reduction")
    reducer = reduction.ForkingPickler._extra_reducers.get(kind) if reduction else None
    module = getattr(reducer, "__module__", "") if reducer else kind.__module__
    if module not in _SHARING_MODULES:
        if shared is not None and kind.__module__.startswith("multiprocessing."):
            shared.used = True  # shared memory with a name, a proxy of a manager
        return NotImplemented
    if shared is None:
        raise TypeError(f"a {kind.__module__}.{kind.__qualname__} {_ONLY_HERE}")
    shared.used = True
    return reducer(value) if reducer else NotImplemented


def _is_shared(value: Any) -> bool:
    """Whether a tensor or storage lies in shared memory that ``share_memory_`` made."""
    return bool(value.device.type == "cpu" and value.is_shared())


def _reduce_tensor(value: Any, torch: Any, shared: SharedObjects | None) -> Any:
    if isinstance(value, torch.Tensor) and (
        type(value) not in {torch.Tensor, torch.nn.Parameter} or value.layout != torch.strided
    ):
        return NotImplemented
    if not _is_shared(value):
        return NotImplemented
    if shared is None:
        raise TypeError(
            f"a tensor in shared memory {_ONLY_HERE}, or give its clone(), a copy for each rank"
        )
    reductions = torch.multiprocessing.reductions
    if isinstance(value, torch.Tensor):
        return reductions.reduce_tensor(value)
    if torch.multiprocessing.get_sharing_strategy() != "file_descriptor":
        raise TypeError(
            "a tensor is shared by torch's strategy 'file_system', in which ranks cannot join; call"
            " torch.multiprocessing.set_sharing_strategy('file_descriptor') before share_memory_()"
        )
    fd, size = value._share_fd_cpu_()
    if fd < 0:
        raise TypeError(
            "a tensor maps a file and cannot be shared by a descriptor; give the path, and call "
            "torch.from_file in the rank"
        )
    rebuild = reductions.rebuild_storage_fd
    return rebuild, (type(value), SharedDescriptor(shared.duplicate_for_child(fd)), size)
