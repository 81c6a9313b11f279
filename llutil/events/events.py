"""The page that an agent and its workers share: flags for all, and one slot of progress a rank.

A page is a small file that every process of a node maps into its memory
(``llutil.events.page_file``). So it works for functions and scripts and for every start method. A
process needs to know its path and nothing else. Each field is one aligned word that is written at
once. So a worker that dies while it writes leaves no half-written value, and no lock that stays
taken. Layout, in native byte order::

    0    header                       128  the node's own step and total, 8 bytes each
    64   flags, 4 bytes each          256  slots, 64 bytes a local rank: step, total, heartbeat

This module may import only the standard library, ``llutil.errors``, ``llutil.events.page_file``,
``llutil.events.rank_slot`` and ``llutil.events.futex``. It decides nothing: the agent decides what
a flag does to a job.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from llutil.errors import ConfigError
from llutil.events import futex
from llutil.events.page_file import HEADER, Page, remove_stale
from llutil.events.rank_slot import HEARTBEAT, STEP, TOTAL, Slot

__all__ = [
    "CAPACITY",
    "ENVIRONMENT",
    "SLOT_NUMBER",
    "Events",
    "Flag",
    "Slot",
    "Value",
    "remove_stale_pages",
    "slot_number",
]

CAPACITY = 256
"""The number of local ranks that a page has slots for."""
ENVIRONMENT = "LLUTIL_EVENTS"
"""The environment variable that holds the path of a worker's page."""
SLOT_NUMBER = "LLUTIL_LOCAL_RANK"
"""The environment variable that holds the number of a worker's slot: its number on its node, also
where torch's LOCAL_RANK is 0 for all.
"""

_VERSION = 1
# Where each part begins, and the size of one slot; in bytes.
_FLAGS, _VALUES, _SLOTS, _SLOT = HEADER, 128, 256, 64
_SIZE = _SLOTS + CAPACITY * _SLOT


class Flag:
    """One bit that every process of the page sees.

    ``wait`` looks at the present value only: it may miss a flag that is raised and lowered again at
    once. Each method raises ``ValueError`` once the page is closed.
    """

    __slots__ = ("_word",)

    def __init__(self, word: memoryview) -> None:
        self._word = word

    def set(self) -> None:
        """Raise the flag, and wake every process and thread that waits for it."""
        self._word[0] = 1
        futex.wake(self._word)

    def clear(self) -> None:
        """Lower the flag."""
        self._word[0] = 0

    def is_set(self) -> bool:
        """Whether the flag is raised."""
        return self._word[0] != 0

    def wait(self, deadline: float) -> bool:
        """Sleep until the flag is raised, or until ``deadline`` (seconds on ``time.monotonic()``).

        Returns whether it is raised. Other threads and signal handlers run meanwhile.
        """
        return futex.wait(self._word, 0, deadline)


class Value:
    """One number of a progress bar, its step or its total; see ``Events.progress_bar_iter``."""

    __slots__ = ("_events", "_index")

    def __init__(self, events: Events, index: int) -> None:
        self._events = events
        self._index = index

    @property
    def value(self) -> int:
        """The number. Assigning to it raises the same errors as ``Slot``'s attributes do."""
        return self._events._read(self._index)  # noqa: SLF001 - one idea in two classes

    @value.setter
    def value(self, value: int) -> None:
        self._events._write(self._index, value)  # noqa: SLF001


class Events:
    """One page: eight flags, two values, and a slot for each local rank.

    ``Events()`` makes a page. The process that made it also removes its file: by ``close``, when
    the object is dropped, or at exit. Pickling writes its path only. A fork shares the page.

    :param folder: where the file goes; by default /dev/shm, or else the folder for temporary files.
    :raises InfrastructureError: no file could be made there.
    """

    def __init__(self, *, folder: str | Path | None = None) -> None:
        self._map(Page.create(_VERSION, _SIZE, folder), None)

    @classmethod
    def attach(cls, path: str, *, local_rank: int | None = None) -> Self:
        """Map the page at ``path``; with ``local_rank``, as the worker of that rank.

        :raises InfrastructureError: the page does not exist any more, or its file was cut short.
        :raises ConfigError: the file is not a page, or a page of another version.
        """
        self = cls.__new__(cls)
        self._map(Page.attach(path, _VERSION, _SIZE), local_rank)
        return self

    @classmethod
    def private(cls) -> Self:
        """A page without a file, for this process and its forks. It cannot be pickled."""
        self = cls.__new__(cls)
        self._map(Page.private(_SIZE), None)
        return self

    def _map(self, page: Page, local_rank: int | None) -> None:
        self._page = page
        whole = memoryview(page.mapping)
        words32 = whole.cast("I")
        self._words64 = whole.cast("Q")
        first = _FLAGS // 4
        flag_words = [words32[index : index + 1] for index in range(first, first + 8)]
        self._views = (*flag_words, words32, self._words64, whole)
        (
            self.pause,
            self.paused,
            self.resume,
            self.stop_all_tasks,
            self.trigger_save_checkpoint,
            self.finished_save_checkpoint,
            self.debugger_start,
            self.debugger_end,
        ) = map(Flag, flag_words)
        self._attached_slot = None if local_rank is None else self.slot(local_rank)
        self._slot_by_pid: tuple[int, Slot] | None = None

    @property
    def path(self) -> str:
        """The path of the page's file.

        :raises ConfigError: the page is private.
        """
        if self._page.path is None:
            raise ConfigError(
                "no other process can map these events: they were made outside a worker, for this "
                "process alone. Make some with Events() to share them"
            )
        return self._page.path

    @property
    def progress_bar_iter(self) -> Value:
        """The step of a progress bar.

        In a worker it is the rank's own step. Elsewhere it is the smallest step of all ranks that
        have reported. Assigning to it outside a worker sets the node's own step, which is read
        while no rank has reported.
        """
        return Value(self, STEP)

    @property
    def progress_bar_total(self) -> Value:
        """The total of a progress bar.

        In a worker it is the rank's own total. Elsewhere it is the greatest total of all ranks;
        while all of them are 0, it is the node's own total.
        """
        return Value(self, TOTAL)

    def slot(self, local_rank: int) -> Slot:
        """The slot of one local rank.

        :raises ConfigError: a page has no slot for this rank.
        """
        if not 0 <= local_rank < CAPACITY:
            raise ConfigError(
                f"local rank {local_rank} has no slot: a page has {CAPACITY}, for ranks 0 to "
                f"{CAPACITY - 1}. Start fewer workers on this node"
            )
        start = (_SLOTS + local_rank * _SLOT) // 8
        return Slot(local_rank, self._words64[start : start + _SLOT // 8])

    def reset_slots(self) -> None:
        """Empty every slot. The agent calls it before it starts the workers of a round."""
        self._page.mapping[_SLOTS:_SIZE] = bytes(_SIZE - _SLOTS)

    def progress(self) -> dict[int, tuple[int, int]]:
        """``{local rank: (step, total)}`` of the ranks that have reported in this round."""
        heartbeats = self._words64[_SLOTS // 8 + HEARTBEAT :: _SLOT // 8].tolist()
        slots = (self.slot(rank) for rank, heartbeat in enumerate(heartbeats) if heartbeat)
        return {slot.local_rank: (slot.step, slot.total) for slot in slots}

    def close(self) -> None:
        """Release the page; its creator also removes the file. It may be called again.

        The memory stays mapped while a slot is in use or a thread waits for a flag.
        """
        self._attached_slot = self._slot_by_pid = None
        for view in self._views:
            with contextlib.suppress(
                BufferError
            ):  # a waiting thread uses it, and releases it later
                view.release()
        self._page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return type(self).attach, (self.path,)

    def __repr__(self) -> str:
        return f"Events({self._page.path or 'private'})"

    def _own_slot(self) -> Slot | None:
        """The slot of the worker that this process is, if it is one.

        A fork may be another worker than its parent, so the answer is kept for one pid only.
        """
        if self._attached_slot is not None:
            return self._attached_slot
        pid = os.getpid()
        if self._slot_by_pid is not None and self._slot_by_pid[0] == pid:
            return self._slot_by_pid[1]
        rank = slot_number()
        if not rank.isdecimal() or os.environ.get(ENVIRONMENT) != self._page.path:
            return None
        slot = self.slot(int(rank))
        self._slot_by_pid = pid, slot
        return slot

    def _read(self, index: int) -> int:
        slot = self._own_slot()
        if slot is not None:
            reported = [(slot.step, slot.total)] if slot.heartbeat else []
        else:
            reported = list(self.progress().values())
        node = self._words64[_VALUES // 8 + index]
        if index == STEP:
            return min((step for step, _ in reported), default=node)
        return max((total for _, total in reported), default=0) or node

    def _write(self, index: int, value: int) -> None:
        slot = self._own_slot()
        if slot is None:
            self._words64[_VALUES // 8 + index] = value
        elif index == STEP:
            slot.report(value)
        else:
            slot.total = value
            slot.report(slot.step)


def remove_stale_pages(folder: str | Path | None = None) -> list[str]:
    """Remove pages whose creator died and left them behind, and return their paths.

    An agent calls it when it starts. Pages of other users and of other pid namespaces stay, and so
    do files that are not pages.
    """
    return remove_stale(folder)


def slot_number() -> str:
    """The number of this worker's slot, as text; "" if this process has none."""
    return os.environ.get(SLOT_NUMBER) or os.environ.get("LOCAL_RANK", "")
