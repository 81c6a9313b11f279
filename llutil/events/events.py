"""The page that an agent and its workers share: flags for all, and one slot of progress a rank.

A page is a small file that every process of a node maps into its memory
(``llutil.events.page_file``). So it works for functions and scripts and for every start method. A
process needs to know its path and nothing else. Each field is one aligned word that is written at
once. So a worker that dies while it writes leaves no half-written value, and no lock that stays
taken. Layout, in native byte order::

    0    header                       128  the node's own step and total, 8 bytes each
    64   flags, 4 bytes each          144  the gate's words, 8 bytes each
    96   gate's turn, cut; 4 each     256  slots, 64 bytes a local rank; then their metrics
    104  resumed from, 8 bytes         112  one more flag, 4 bytes

This module may import only the standard library, ``llutil.errors`` and its own room. It decides
nothing: the agent decides what a flag does to a job.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from llutil.errors import ConfigError
from llutil.events import metrics
from llutil.events.bar_value import Value
from llutil.events.cut_order import CutOrder
from llutil.events.flag import Flag
from llutil.events.gate import WORDS, Gate
from llutil.events.page_file import HEADER, Page, remove_stale
from llutil.events.page_flags import PageFlags
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

_VERSION = 2
# Where each part begins, and the size of one slot; in bytes.
_FLAGS, _TURN, _RESUMED, _MORE_FLAGS, _VALUES = HEADER, 96, 104, 112, 128
_GATE, _SLOTS, _SLOT = 144, 256, 64
_METRICS = _SLOTS + CAPACITY * _SLOT
_SIZE = _METRICS + CAPACITY * metrics.SIZE


class Events(PageFlags):
    """One page: nine flags, two values, a slot for each local rank, and the ``gate`` of the node.

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
        flags = (*range(first, first + 8), _MORE_FLAGS // 4)
        flag_words = [words32[index : index + 1] for index in flags]
        turn, cut = (words32[index : index + 1] for index in (_TURN // 4, _TURN // 4 + 1))
        self.cut_order = CutOrder(cut)
        gate = self._words64[_GATE // 8 : _GATE // 8 + WORDS]
        words64 = self._words64
        # Without this object in it, which is freed as soon as it is dropped.
        self.gate = Gate(gate, turn, lambda: _reported(words64))
        self._views = (*flag_words, turn, cut, gate, words32, self._words64, whole)
        self.map_flags(flag_words)
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
        return Value(self._read, self._write, STEP)

    @property
    def progress_bar_total(self) -> Value:
        """The total of a progress bar.

        In a worker it is the rank's own total. Elsewhere it is the greatest total of all ranks;
        while all of them are 0, it is the node's own total.
        """
        return Value(self._read, self._write, TOTAL)

    def slot(self, local_rank: int) -> Slot:
        """The slot of one local rank.

        :raises ConfigError: a page has no slot for this rank.
        """
        if not 0 <= local_rank < CAPACITY:
            raise ConfigError(
                f"local rank {local_rank} has no slot: a page has {CAPACITY}, for ranks 0 to "
                f"{CAPACITY - 1}. Start fewer workers on this node"
            )
        return _slot(self._words64, local_rank)

    def metrics_of(self, slot: Slot) -> metrics.RankMetrics:
        """The metrics of that slot's rank."""
        start = _METRICS + slot.local_rank * metrics.SIZE
        return metrics.RankMetrics(slot, memoryview(self._page.mapping)[start:][: metrics.SIZE])

    @property
    def debugged(self) -> bool:
        """Whether a person debugs a rank of this node, so that others wait for it."""
        return self.debugger_start.is_set() and not self.debugger_end.is_set()

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint that a rank of this round has gone on from, if one has."""
        word = self._words64[_RESUMED // 8]
        return word - 1 if word else None

    @resumed_from.setter
    def resumed_from(self, step: int) -> None:
        self._words64[_RESUMED // 8] = step + 1

    def reset_slots(self) -> None:
        """Empty every slot and the gate, and lower the debugger's flags: a new round begins."""
        self._words64[_RESUMED // 8] = 0
        self._page.mapping[_SLOTS:_SIZE] = bytes(_SIZE - _SLOTS)
        self.gate.reset()
        # A rank that was debugged may have been killed at its prompt.
        self.debugger_start.clear()
        self.debugger_end.clear()

    def progress(self) -> dict[int, tuple[int, int]]:
        """``{local rank: (step, total)}`` of the ranks that have reported in this round."""
        return {slot.local_rank: (slot.step, slot.total) for slot in _reported(self._words64)}

    def metrics(self) -> dict[int, dict[str, float]]:
        """``{local rank: {name: value}}`` of the ranks that have reported in this round."""
        return {slot.local_rank: self.metrics_of(slot).read() for slot in _reported(self._words64)}

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


def _slot(words64: memoryview, local_rank: int) -> Slot:
    start = (_SLOTS + local_rank * _SLOT) // 8
    return Slot(local_rank, words64[start : start + _SLOT // 8])


def _reported(words64: memoryview) -> list[Slot]:
    """The slots of the ranks that have reported."""
    heartbeats = words64[_SLOTS // 8 + HEARTBEAT : _METRICS // 8 : _SLOT // 8].tolist()
    return [_slot(words64, rank) for rank, heartbeat in enumerate(heartbeats) if heartbeat]


def remove_stale_pages(folder: str | Path | None = None) -> list[str]:
    """Remove pages whose creator died and left them behind, and return their paths.

    An agent calls it when it starts. Pages of other users and of other pid namespaces stay, and so
    do files that are not pages.
    """
    return remove_stale(folder)


def slot_number() -> str:
    """The number of this worker's slot, as text; "" if this process has none."""
    return os.environ.get(SLOT_NUMBER) or os.environ.get("LOCAL_RANK", "")
