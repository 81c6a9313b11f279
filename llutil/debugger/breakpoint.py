"""``breakpoint``: debug a rank on the terminal where its job was launched.

``PYTHONBREAKPOINT=llutil.launcher.breakpoint`` makes Python's own ``breakpoint()`` do the same.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import dataclass, field
from types import FrameType

from llutil.debugger.frame_pdb import FramePdb
from llutil.debugger.rank_pdb import RankPdb
from llutil.errors import LaunchError
from llutil.events.events import ENVIRONMENT
from llutil.system.terminal import TERMINAL

__all__ = ["breakpoint"]

_log = logging.getLogger(__name__)

_VARIABLE = "PYTHONBREAKPOINT"
_NAME = "llutil.launcher.breakpoint"


@dataclass(slots=True)
class _Process:
    """What a process has for debugging. ``by_thread`` are its debuggers, by the number of the
    thread; ``over`` is set once nothing stops any more.
    """

    by_thread: dict[int, RankPdb] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    has_warned: bool = False

    def spare(self) -> RankPdb | None:
        """The debugger of a thread that has ended, which no longer has it."""
        for ended in set(self.by_thread) - set(sys._current_frames()):  # noqa: SLF001 - public
            if (found := self.by_thread.pop(ended, None)) is not None:
                return found
        return None


# By pid: a forked child needs debuggers of its own.
_processes: dict[int, _Process] = {}


def breakpoint(*, header: str | None = None) -> None:  # noqa: A001 - it stands in for Python's
    """Stop here and debug this rank with pdb, on the terminal of the program that launched the job.

    It works with any number of ranks, also where their standard input is empty. ``header`` is
    printed first. pdb's commands are the usual ones, with these meanings for a job:

    * ``c`` goes on, to the next breakpoint.
    * ``q`` and the end of input go on too, and this rank stops at no breakpoint any more. The rank
      does not fail as it would elsewhere: its failure would restart all ranks, which would come to
      the same breakpoint again.
    * Ctrl-C stops the job, as always.

    Ranks of a node that stop at once take turns, prompt by prompt; the prompt names the rank. Other
    ranks wait where they are, which is mostly in a collective. That has a timeout of its own, and a
    rank that is debugged for longer makes the others fail (torch's ``init_process_group(timeout=)``
    sets it). The hang watchdogs of all nodes wait, and so do the lines of progress. Over torch's
    own backends, nodes cannot tell each other: there only this node's wait.

    Without a terminal this logs a warning once and goes on: a job in the background has none, and
    an Airflow task has one only in ``dag.test()``. Outside a launch it is Python's
    ``breakpoint()``.
    """
    named = os.environ.get(_VARIABLE, "")
    if named == "0":  # as Python has it
        return
    frame = sys._getframe(1)  # noqa: SLF001 - as pdb.set_trace does
    if ENVIRONMENT not in os.environ:
        _stop_outside_a_launch(frame, named, header)
        return
    debugger = _debugger()
    if debugger is not None:
        debugger.stop(frame, header)


def _debugger() -> RankPdb | None:
    """The debugger of this thread; None if nothing stops any more, or, with a warning, if there is
    no terminal.
    """
    process = _processes.setdefault(os.getpid(), _Process())
    if process.over.is_set():
        return None
    thread = threading.get_ident()
    found = process.by_thread.get(thread) or process.spare()
    if found is None:
        try:
            path = os.environ.get(TERMINAL, "")
            if not path:
                raise OSError("the launching program has none, or runs in the background")
            found = RankPdb(path, process.over)
        except (LaunchError, OSError) as error:
            if not process.has_warned:
                process.has_warned = True
                _log.warning("breakpoint() goes on: no terminal for this rank: %s", error)
            return None
    process.by_thread[thread] = found
    return found


def _stop_outside_a_launch(frame: FrameType, named: str, header: str | None) -> None:
    """What Python's ``breakpoint()`` does in ``frame``."""
    hook = sys.breakpointhook
    if hook is breakpoint:
        hook = sys.__breakpointhook__
    if hook is not sys.__breakpointhook__ or named not in ("", "pdb.set_trace", _NAME):
        hook()
        return
    debugger = FramePdb()
    if header is not None:
        debugger.message(header)
    debugger.set_trace(frame)
