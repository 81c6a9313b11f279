"""A tiny process that outlives its agent by one purpose: to leave nothing of the job behind.

The agent holds one end of a pipe and tells the guardian, line by line, whom to look after. However the agent ends,
the kernel closes the pipe. If the agent did not say goodbye first, the guardian kills the sessions that it was told
of, their descendants, and everything that carries the job's mark. Only then, when nothing of the node runs any more,
it carries out the node's will: its peers need not wait until its lease expires. It is a fresh interpreter in a session
of its own, without torch, site-packages or a thread, and it starts nothing.

``Guardian`` is the agent's side. If the guardian itself is killed, the agent starts another and tells it everything
again. What the two say is between them and may hold a password: it goes through the pipe and nowhere else. This module
may import nothing but the standard library, ``llutil.page``, ``llutil.ledgers.will`` and the room's ``loop`` and
``processes``; the module of a will is imported when it comes.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llutil
from llutil.agent.loop import Loop
from llutil.agent.processes import end_all
from llutil.errors import RendezvousError
from llutil.ledgers.will import Will
from llutil.page import remove_stale

__all__ = ["Guardian", "main"]

_log = logging.getLogger(__name__)

_KILL_DEADLINE = 10.0  # seconds for the kernel to end what was sent SIGKILL
_MOST_DEATHS = 20  # within so many seconds, of guardians: more are not started
_DEATHS_PERIOD = 10.0
_GONE_DEADLINE = 2.0  # seconds for an agent whose pipe closed to be gone
_GONE_PERIOD = 0.02
_GOODBYE = "goodbye"


def main(pipe_fd: int, mark: str, agent: int) -> None:
    """The guardian's whole life: listen, and if the pipe closes without a goodbye, clear up after the agent.

    ``agent`` is the agent's process number.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(
            number, signal.SIG_IGN
        )  # it ends with the agent, not with what is meant for the agent
    sessions: set[int] = set()
    carry_out: Callable[[], None] | None = None
    with os.fdopen(pipe_fd, "rb") as pipe:
        for line in pipe:
            if not line.endswith(b"\n"):
                break  # the agent was killed while it wrote: what it says is not known, that it died is
            match json.loads(line):
                case {"session": int(session)}:
                    sessions.add(session)
                case {"ended": int(session)}:
                    sessions.discard(session)
                case {"will": None}:
                    carry_out = None
                case {"will": dict(will)}:
                    carry_out = _prepared(will)
                case _:
                    return  # goodbye
    left = end_all(sessions, mark, time.monotonic() + _KILL_DEADLINE)
    if carry_out is not None:
        _execute(carry_out, left)
    # Its event page would stay until the next launch on this host. The pipe closes a little before the agent
    # counts as gone, which makes its page one that may be removed.
    deadline = time.monotonic() + _GONE_DEADLINE
    while os.getppid() == agent and time.monotonic() < deadline:
        time.sleep(_GONE_PERIOD)
    remove_stale()


def _prepared(will: dict[str, Any]) -> Callable[[], None] | None:
    """What carries the will out, with all that it needs imported, while there is time for that."""
    try:
        return Will.from_json(will).prepare()
    except (
        ImportError
    ) as error:  # a Python without ssl, say: the rest of a guardian's work is worth more
        _say(f"if this node is killed, its lease is left to expire: {error}")
        return None


def _execute(carry_out: Callable[[], None], left: set[int]) -> None:
    """Carry the will out, unless a process of the node is ``left``: peers must not go on beside what still runs."""
    try:
        if left:
            raise RendezvousError(
                f"processes {sorted(left)} of a node that was killed did not end; its lease is left to expire"
            )
        carry_out()
    except RendezvousError as error:
        _say(str(error))


def _say(text: str) -> None:
    with suppress(OSError):  # the standard error was the agent's; nobody may read it any more
        os.write(2, f"llutil's guardian: {text}\n".encode(errors="replace"))


class Guardian:
    """The agent's side: starts the process, keeps it running, tells it of sessions. Lives on the agent's loop."""

    def __init__(self, mark: str, loop: Loop) -> None:
        self._mark = mark
        self._loop = loop
        self._sessions: set[int] = set()
        self._will: Will | None = None
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._exit_fd = -1
        self._start()

    @property
    def pid(self) -> int:
        """The present guardian's process number."""
        assert self._process is not None
        return self._process.pid

    def fds(self) -> set[int]:
        """What a forked worker must not keep: while it held the pipe, the agent's death would go unnoticed."""
        return {fd for fd in (self._pipe, self._exit_fd) if fd >= 0}

    def watch(self, session: int) -> None:
        """Look after the session ``session`` and all that descends from it."""
        self._sessions.add(session)
        self._tell({"session": session})

    def forget(self, session: int) -> None:
        """The session has ended; its number may become somebody else's."""
        self._sessions.discard(session)
        self._tell({"ended": session})

    def bequeath(self, will: Will | None) -> None:
        """What to do for this node if its agent is killed; None, nothing any more. Nothing is said if it is known."""
        if will != self._will:
            self._will = will
            self._tell({"will": will.to_json() if will is not None else None})

    def close(self) -> None:
        """Say goodbye: the job has ended and left nothing."""
        self._tell(_GOODBYE)
        self._drop()

    def _start(self) -> None:
        read, self._pipe = os.pipe2(os.O_CLOEXEC)
        home = str(Path(llutil.__file__).parent.parent)
        code = (
            f"import sys; sys.path.append({home!r}); "
            f"from llutil.agent.guardian import main; "
            f"main({read}, {self._mark!r}, {os.getpid()})"
        )
        # -I: no environment variable, no site-packages, no working directory can keep it from starting.
        # TMPDIR says where the event page is if there is no /dev/shm.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(read,),
            start_new_session=True,
            env={name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
        )
        os.close(read)
        self._exit_fd = os.pidfd_open(self._process.pid)
        self._loop.watch(self._exit_fd, self._replace)
        for session in self._sessions:
            self._tell({"session": session})
        if self._will is not None:
            self._tell({"will": self._will.to_json()})

    def _replace(self) -> None:
        """Somebody killed the guardian: start another, unless none of them lives."""
        self._drop()
        self._deaths.append(time.monotonic())
        if (
            len(self._deaths) == _MOST_DEATHS
            and self._deaths[-1] - self._deaths[0] < _DEATHS_PERIOD
        ):
            _log.error(
                "the guardian has died %d times in %.0f s; this job goes on without one: should its agent be "
                "killed, children of its workers may stay behind",
                _MOST_DEATHS,
                _DEATHS_PERIOD,
            )
            self._process = None
        else:
            _log.warning("the guardian died; another one takes its place")
            self._start()

    def _drop(self) -> None:
        if self._process is None:
            return
        self._loop.unwatch(self._exit_fd)
        os.close(self._exit_fd)
        os.close(self._pipe)
        self._exit_fd = self._pipe = -1
        # After a goodbye there is nothing left for it to do; it may still be starting, or be stopped.
        self._process.kill()
        self._process.wait(_KILL_DEADLINE)

    def _tell(self, words: object) -> None:
        if self._pipe < 0:
            return
        with suppress(
            BrokenPipeError
        ):  # it was killed a moment ago: the loop will hear of it, and replace it
            os.write(self._pipe, json.dumps(words).encode() + b"\n")
