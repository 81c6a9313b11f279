"""pdb on the terminal of the launching program, which the ranks of a job use in turns.

A rank leads a session of its own. Linux lets it read from a terminal that is another session's, and
sends it no signal for that (6.18, ``__tty_check_change``). The lock of the turns lies on the
terminal itself, so all jobs at one terminal share it, and the kernel releases it when its holder
dies. It is held for one prompt and not longer: a rank that steps over a collective needs the
others, which may be waiting for their turn.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from llutil import worker
from llutil.debugger.frame_pdb import FramePdb
from llutil.events.events import slot_number
from llutil.events.rank_slot import Doing

__all__ = ["RankPdb"]

_log = logging.getLogger(__name__)

# Frames in which nobody wants to stop, and the last one that calls user code.
_OURS = ("llutil", "llutil.*")
_CALLER = "llutil.agent.worker_side"


class RankPdb(FramePdb):
    """pdb for this rank, on the terminal at ``path``. One thread uses it at a time. ``over`` is set
    when the debuggers of all threads of the rank are to stop no more.

    :raises OSError: the terminal cannot be opened.
    :raises LaunchError: the launch is over.
    """

    def __init__(self, path: str, over: threading.Event) -> None:
        self._over = over
        self._events = worker.events()
        self._slot = self._events.slot(int(slot_number()))
        self._name = f"rank {worker.rank()}"
        # Without O_NOCTTY it could become this session's terminal, and Ctrl-C would reach the rank.
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if not os.isatty(self._fd):
            os.close(self._fd)
            raise OSError(f"{path} is no terminal")
        super().__init__(
            stdin=open(self._fd, errors="replace", closefd=False),  # noqa: SIM115 - as long as this
            stdout=open(self._fd, "w", errors="backslashreplace", closefd=False),  # noqa: SIM115
            skip=_OURS,
            nosigint=True,  # Ctrl-C is the agent's
        )
        self.prompt = f"(Pdb {self._name}) "
        self._before = Doing.STEPS
        self._debugging = False
        self._goes_on = False
        self._interrupted = False
        self._headers: list[str] = []
        atexit.register(self._end)

    def stop(self, frame: FrameType, header: str | None) -> None:
        """Stop in ``frame``, which is the caller of whoever calls this last."""
        if self._over.is_set():
            return
        self._headers = [
            f"{self._name} on {socket.gethostname()}, pid {os.getpid()}, has the terminal. "
            "c: go on; q: go on and stop no more; Ctrl-C: stop the job",
            *([] if header is None else [header]),
        ]
        self.set_trace(frame)

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Python tells of a line, a call and the like."""
        if self._over.is_set():  # another thread has ended debugging, and cleared all breakpoints
            self._end()
            sys.settrace(None)
            return None
        return super().trace_dispatch(frame, event, arg)

    # What pdb calls when it stops. Each waits for the terminal first.

    def user_call(self, frame: FrameType, argument_list: Any) -> None:
        """A function is called."""
        if self.stop_here(frame):
            self._in_turn(lambda: super(RankPdb, self).user_call(frame, argument_list))

    def user_line(self, frame: FrameType) -> None:
        """A line is reached."""
        self._in_turn(lambda: super(RankPdb, self).user_line(frame))

    def user_opcode(self, frame: FrameType) -> None:
        """The debugger stops inside a line, as it does first since Python 3.13: at the call that
        asked for it, and not at the line behind that.
        """
        self.user_line(frame)

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        """A function returns."""
        self._in_turn(lambda: super(RankPdb, self).user_return(frame, return_value))
        caller = frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
        if caller.startswith(_CALLER):  # the user's code has ended
            self.set_continue()
            self._end()

    def user_exception(
        self,
        frame: FrameType,
        exc_info: tuple[type[BaseException], BaseException, TracebackType],
    ) -> None:
        """An exception is raised."""
        self._in_turn(lambda: super(RankPdb, self).user_exception(frame, exc_info))

    def set_continue(self) -> None:
        """Go on to the next breakpoint."""
        self._goes_on = True
        super().set_continue()

    def set_quit(self) -> None:
        """Go on, and stop no more."""
        self._over.set()
        self.clear_all_breaks()
        self.set_continue()

    def do_run(self, arg: str) -> None:
        """A rank cannot be run again from here."""
        del arg
        self.error("a rank cannot be restarted from here")

    do_restart = do_run

    # pdb takes an interrupt for the end of a command. Here it is what stops the job, and comes from
    # the agent, so it goes on to the user's code.

    def _cmdloop(self) -> None:
        self.cmdloop()

    def _error_exc(self) -> None:
        self._interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        super()._error_exc()  # type: ignore[misc]  # typeshed has public names only

    def postcmd(self, stop: bool, line: str) -> bool:
        """A command is over."""
        if self._interrupted:
            raise KeyboardInterrupt
        return super().postcmd(stop, line)

    def _in_turn(self, interact: Callable[[], None]) -> None:
        """Call ``interact`` when it is this rank's turn at the terminal."""
        self._goes_on = False
        try:
            self._begin()
            with contextlib.suppress(OSError):  # a terminal without locks
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._over.is_set():  # another thread has ended debugging meanwhile
                self.set_quit()
                return
            self._begin()  # whose turn it was may have taken all for over
            while self._headers:
                self.message(self._headers.pop(0))
            interact()
        except OSError as error:
            _log.warning("debugging is over, since the terminal is gone: %s", error)
            self.set_quit()
        except KeyboardInterrupt:  # the agent stops the job
            self.set_quit()
            raise
        finally:
            with contextlib.suppress(OSError):
                self.stdout.flush()
            if self._goes_on:
                self._end()
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _begin(self) -> None:
        """Tell the node that this rank is debugged."""
        if not self._debugging:
            self._debugging = True
            self._before = Doing(self._slot.doing)
        self._slot.doing = Doing.DEBUGGED
        self._events.debugger_end.clear()
        self._events.debugger_start.set()

    def _end(self) -> None:
        """Tell it that the rank goes on, if no other one is debugged."""
        if not self._debugging:
            return
        self._debugging = False
        self._slot.doing = self._before
        slots = (self._events.slot(local) for local in range(worker.local_world_size()))
        if all(slot.doing != Doing.DEBUGGED for slot in slots):
            self._events.debugger_end.set()
            self._events.debugger_start.clear()
