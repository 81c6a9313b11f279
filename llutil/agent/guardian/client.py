"""The agent's side of its guardian, the process that leaves nothing of the job behind; see
``main``.

If the guardian itself is killed, the agent starts another and tells it everything again. What the
two say is between them and may hold a password: it goes through the pipe and nowhere else. This
module may import nothing but the standard library, ``llutil.ledgers.lease_revocation``,
``llutil.time_budgets``, ``llutil.agent.event_loop`` and this folder.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import llutil
from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian.main import GOODBYE
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.time_budgets import HELPER_ENDED

__all__ = ["Guardian"]

_log = logging.getLogger(__name__)

_MOST_DEATHS = 20  # within so many seconds, of guardians: more are not started
_DEATHS_PERIOD = 10.0


class Guardian:
    """The agent's side: starts the process, keeps it running, tells it of sessions. Lives on the
    agent's loop.
    """

    def __init__(self, mark: str, loop: EventLoop) -> None:
        self._mark = mark
        self._loop = loop
        self._sessions: set[int] = set()
        self._revocation: LeaseRevocation | None = None
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
        """What a forked worker must not keep: while it held the pipe, the agent's death would go
        unnoticed.
        """
        return {fd for fd in (self._pipe, self._exit_fd) if fd >= 0}

    def watch(self, session: int) -> None:
        """Look after the session ``session`` and all that descends from it."""
        self._sessions.add(session)
        self._tell(b"session %d" % session)

    def forget(self, session: int) -> None:
        """The session has ended; its number may become somebody else's."""
        self._sessions.discard(session)
        self._tell(b"ended %d" % session)

    def set_revocation(self, revocation: LeaseRevocation | None) -> None:
        """What ends this node's lease if its agent is killed; None if there is nothing to end. It
        is sent only when it changes.
        """
        if revocation != self._revocation:
            self._revocation = revocation
            self._send_revocation()

    def close(self) -> None:
        """Say goodbye: the job has ended and left nothing."""
        self._tell(GOODBYE)
        self._drop()

    def _start(self) -> None:
        read, self._pipe = os.pipe2(os.O_CLOEXEC)
        home = str(Path(llutil.__file__).parent.parent)
        code = (
            f"import sys; sys.path.append({home!r}); "
            f"from llutil.agent.guardian.main import main; "
            f"main({read}, {self._mark!r}, {os.getpid()})"
        )
        # -I: no environment variable, no site-packages, no working directory can keep it from
        # starting. TMPDIR says where the event page is if there is no /dev/shm.
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
            self._tell(b"session %d" % session)
        if self._revocation is not None:
            self._send_revocation()

    def _replace(self) -> None:
        """Somebody killed the guardian: start another, unless none of them lives."""
        self._drop()
        self._deaths.append(time.monotonic())
        if (
            len(self._deaths) == _MOST_DEATHS
            and self._deaths[-1] - self._deaths[0] < _DEATHS_PERIOD
        ):
            _log.error(
                "the guardian has died %d times in %.0f s; this job goes on without one: should "
                "its agent be "
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
        # After a goodbye there is nothing left for it to do; it may still be starting, or be
        # stopped.
        self._process.kill()
        try:
            self._process.wait(HELPER_ENDED)
        except subprocess.TimeoutExpired:
            text = "the guardian, process %d, is there %g s after SIGKILL"
            _log.warning(text, self.pid, HELPER_ENDED)

    def _send_revocation(self) -> None:
        revocation = self._revocation.to_json() if self._revocation is not None else None
        self._tell(b"revocation " + json.dumps(revocation).encode())

    def _tell(self, words: bytes) -> None:
        if self._pipe < 0:
            return
        with suppress(
            BrokenPipeError
        ):  # it was killed a moment ago: the loop will hear of it, and replace it
            os.write(self._pipe, words + b"\n")
