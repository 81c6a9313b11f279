"""The page that an agent and its workers share: flags for all, and one slot of progress a rank.

A page is a small file that every process of a node maps (``llutil.events.page_file``), so that it
serves functions and scripts, every start method and processes that know nothing of each other but a
path. Each field is one aligned word, written in one go: a worker that dies while it writes leaves
neither a torn value nor a held lock. Layout, in native byte order::

    0    header                       128  the node's own step and total, 8 bytes each
    64   flags, 4 bytes each          256  slots, 64 bytes a local rank: step, total, heartbeat, state

This module may import nothing but the standard library, ``llutil.errors``,
``llutil.events.page_file``, ``llutil.events.rank_slot`` and ``llutil.events.futex``. It decides
nothing: what a flag does to a job is the agent's business.
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
from llutil.events.rank_slot import HEARTBEAT, STEP, TOTAL, Slot, SlotState

__all__ = [
    "CAPACITY",
    "ENVIRONMENT",
    "Events",
    "Flag",
    "Slot",
    "SlotState",
    "Value",
    "remove_stale_pages",
]

CAPACITY = 256
"""Local ranks that a page has slots for."""
ENVIRONMENT = "LLUTIL_EVENTS"
"""The environment variable by which a worker knows its page's path."""

_VERSION = 1
_FLAGS, _VALUES, _SLOTS, _SLOT = HEADER, 128, 256, 64  # bytes
_SIZE = _SLOTS + CAPACITY * _SLOT


class Flag:
    """One bit that every process of the page sees.

    It is a level and not a pulse: ``wait`` may miss a flag that is cleared again at once. Each
    method raises ``ValueError`` once the page is closed.
    """

    __slots__ = ("_word",)

    def __init__(self, word: memoryview) -> None:
        self._word = word

    def set(self) -> None:
        """Raise the flag, and wake everyone who waits for it."""
        self._word[0] = 1
        futex.wake(self._word)

    def clear(self) -> None:
        """Lower the flag."""
        self._word[0] = 0

    def is_set(self) -> bool:
        """Whether the flag is up."""
        return self._word[0] != 0

    def wait(self, deadline: float) -> bool:
        """Sleep until the flag is up, or until ``deadline`` on ``time.monotonic()``; say whether it
        is up.

        Other threads and signal handlers run meanwhile.
        """
        return futex.wait(self._word, 0, deadline)


class Value:
    """The step or the total of a progress bar, as one number; see ``Events.progress_bar_iter``."""

    __slots__ = ("_events", "_index")

    def __init__(self, events: Events, index: int) -> None:
        self._events = events
        self._index = index

    @property
    def value(self) -> int:
        """The number; setting it raises as ``Slot``'s attributes do."""
        return self._events._read(self._index)  # noqa: SLF001 - two halves of one idea

    @value.setter
    def value(self, value: int) -> None:
        self._events._write(self._index, value)  # noqa: SLF001


class Events:
    """One page: eight flags, two values, and a slot for each local rank.

    ``Events()`` makes a page; the process that made it also removes its file, by ``close``, when
    the object is dropped or at exit. It is pickled as its path, and a fork shares it.

    :param folder: where the file goes; by default /dev/shm, or else the folder for temporary files.
    :raises InfrastructureError: no file could be made there.
    """

    def __init__(self, *, folder: str | Path | None = None) -> None:
        self._map(Page.create(_VERSION, _SIZE, folder), None)

    @classmethod
    def attach(cls, path: str, *, local_rank: int | None = None) -> Self:
        """Map the page at ``path``, as the worker ``local_rank`` if given.

        :raises InfrastructureError: there is no page any more, or its file was cut short.
        :raises ConfigError: the file is no page, or one of another version.
        """
        self = cls.__new__(cls)
        self._map(Page.attach(path, _VERSION, _SIZE), local_rank)
        return self

    @classmethod
    def private(cls) -> Self:
        """A page without a file: for this process and those it forks. It cannot be pickled."""
        self = cls.__new__(cls)
        self._map(Page.private(_SIZE), None)
        return self

    def _map(self, page: Page, local_rank: int | None) -> None:
        self._page = page
        whole = memoryview(page.mapping)
        halves = whole.cast("I")
        self._words = whole.cast("Q")
        first = _FLAGS // 4
        words = [halves[index : index + 1] for index in range(first, first + 8)]
        self._views = (*words, halves, self._words, whole)
        (
            self.pause,
            self.paused,
            self.resume,
            self.stop_all_tasks,
            self.trigger_save_checkpoint,
            self.finished_save_checkpoint,
            self.debugger_start,
            self.debugger_end,
        ) = map(Flag, words)
        self._bound = None if local_rank is None else self.slot(local_rank)
        self._found: tuple[int, Slot] | None = None

    @property
    def path(self) -> str:
        """The page's file.

        :raises ConfigError: the page is private.
        """
        if self._page.path is None:
            raise ConfigError(
                "these events live in this process alone, so no other can map them: they were made "
                "outside a worker. Make some with Events() to share them"
            )
        return self._page.path

    @property
    def progress_bar_iter(self) -> Value:
        """The step. In a worker it is the rank's own; elsewhere the least of all ranks that
        reported.

        Outside a worker, setting it sets the node's own, which is read while no rank has reported.
        """
        return Value(self, STEP)

    @property
    def progress_bar_total(self) -> Value:
        """The total, by the same rules, but the greatest; while all ranks' are 0, the node's
        own.
        """
        return Value(self, TOTAL)

    def slot(self, local_rank: int) -> Slot:
        """The slot of one local rank.

        :raises ConfigError: there is none.
        """
        if not 0 <= local_rank < CAPACITY:
            raise ConfigError(
                f"local rank {local_rank} has no slot: a page has {CAPACITY}, for ranks 0 to "
                f"{CAPACITY - 1}. Start fewer workers on this node"
            )
        start = (_SLOTS + local_rank * _SLOT) // 8
        return Slot(local_rank, self._words[start : start + _SLOT // 8])

    def reset_slots(self) -> None:
        """Empty every slot; for the agent, before it starts the workers of a round."""
        self._page.mapping[_SLOTS:_SIZE] = bytes(_SIZE - _SLOTS)

    def progress(self) -> dict[int, tuple[int, int]]:
        """``{local rank: (step, total)}`` of the ranks that have reported in this round."""
        beats = self._words[_SLOTS // 8 + HEARTBEAT :: _SLOT // 8].tolist()
        slots = (self.slot(local_rank) for local_rank, beat in enumerate(beats) if beat)
        return {slot.local_rank: (slot.step, slot.total) for slot in slots}

    def close(self) -> None:
        """Let go of the page; its creator also removes the file. May be called again.

        Slots in use and threads that wait keep the memory mapped until they are done.
        """
        self._bound = self._found = None
        for view in self._views:
            with contextlib.suppress(BufferError):  # a thread waits on it, and lets go by itself
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
        """The slot of the worker that this process is, if any; a fork may make it another one."""
        if self._bound is not None:
            return self._bound
        pid = os.getpid()
        if self._found is not None and self._found[0] == pid:
            return self._found[1]
        rank = os.environ.get("LOCAL_RANK", "")
        if not rank.isdecimal() or os.environ.get(ENVIRONMENT) != self._page.path:
            return None
        slot = self.slot(int(rank))
        self._found = pid, slot
        return slot

    def _read(self, index: int) -> int:
        slot = self._own_slot()
        if slot is not None:
            reported = [(slot.step, slot.total)] if slot.heartbeat else []
        else:
            reported = list(self.progress().values())
        node = self._words[_VALUES // 8 + index]
        if index == STEP:
            return min((step for step, _ in reported), default=node)
        return max((total for _, total in reported), default=0) or node

    def _write(self, index: int, value: int) -> None:
        slot = self._own_slot()
        if slot is None:
            self._words[_VALUES // 8 + index] = value
        elif index == STEP:
            slot.report(value)
        else:
            slot.total = value
            slot.report(slot.step)


def remove_stale_pages(folder: str | Path | None = None) -> list[str]:
    """Remove pages whose creator died without doing so, and return their paths; for an agent's
    start.

    Pages of other users and other pid namespaces are left alone, as are files that are no pages.
    """
    return remove_stale(folder)
