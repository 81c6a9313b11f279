"""The agent's side of its guardian: starts the process and tells it what to end; see ``main``.

If the guardian itself is killed, the agent starts another and tells it everything again. The
messages may hold a password, so they go through the pipe and nowhere else. This module may import
nothing but the standard library, ``llutil.ledgers.lease_revocation``, ``llutil.time_budgets``,
``llutil.agent.event_loop``, ``llutil.system`` and this folder.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Container
from pathlib import Path
from selectors import EVENT_WRITE

import llutil
from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian.main import GOODBYE
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.system.job_mark import GUARDIAN_VARIABLE
from llutil.system.process_table import Moment
from llutil.time_budgets import HELPER_ENDED

__all__ = ["Guardian"]

_log = logging.getLogger(__name__)

# After so many deaths of guardians within so many seconds, no further guardian is started.
_MAX_DEATHS = 20
_DEATHS_PERIOD = 10.0
_WITHOUT = (
    "this job goes on without one: if the agent is killed too, children of its workers may keep "
    "running"
)
# Bytes that wait for a guardian that does not read. The pipe holds 64 KiB more.
_MAX_UNWRITTEN = 1 << 16


class Guardian:
    """Starts the guardian process, starts it again if it dies, and tells it of workers' sessions.
    It runs on the agent's loop.
    """

    def __init__(self, mark: str, loop: EventLoop) -> None:
        self._mark = mark
        self._loop = loop
        self._sessions: dict[int, int] = {}
        self._revocation: LeaseRevocation | None = None
        self._deaths: deque[float] = deque(maxlen=_MAX_DEATHS)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._exit_fd = -1
        self._unwritten = b""
        """What the pipe had no room for."""
        self.since: Moment | None = Moment()
        """When nothing of the job was there but the sessions that it watches; None if that is
        unknown. See ``kill_all``.
        """
        self._kept = False
        """Whether it has no loop, and no job."""
        self._start()

    @property
    def pid(self) -> int:
        """The process number of the guardian that runs now."""
        assert self._process is not None
        return self._process.pid

    def fds(self) -> set[int]:
        """What a forked worker must not keep. While a worker holds the pipe, the guardian does not
        notice the agent's death.
        """
        return {fd for fd in (self._pipe, self._exit_fd) if fd >= 0}

    def watch(self, session: int, start: int) -> None:
        """End the session ``session``, and all that descends from it, if the agent dies. ``start``
        is when the process that leads it started, in ticks.
        """
        self._sessions[session] = start
        self._write_line(b"session %d %d" % (session, start))

    def forget_all_but(self, sessions: Container[int]) -> None:
        """All sessions have ended but ``sessions``. Their numbers may be given to other processes,
        whose sessions would be killed.
        """
        for session in [known for known in self._sessions if known not in sessions]:
            del self._sessions[session]
            self._write_line(b"ended %d" % session)

    def set_revocation(self, revocation: LeaseRevocation | None) -> None:
        """Give the guardian what it needs to end this node's lease if the agent is killed; None if
        there is no lease. It is sent only when it changes.
        """
        if revocation != self._revocation:
            self._revocation = revocation
            self._send_revocation()

    def keep(self) -> None:
        """The job has ended and left nothing: leave the loop, and have the guardian wait for the
        next job.
        """
        self.forget_all_but(())
        self.set_revocation(None)
        self._loop.unwatch(self._exit_fd)
        if self._unwritten:  # it does not read
            self._end_process()
        self._kept = True

    def take_up(self, loop: EventLoop) -> None:
        """Guard another job, whose loop is ``loop``, after ``keep``. If the guardian has ended,
        another is started.

        :raises OSError: there can be none.
        """
        self._loop, self._kept = loop, False
        if self._process is None or self._process.poll() is not None:
            self._end_process()
            self._start()
        else:
            loop.watch(self._exit_fd, self._replace)

    def close(self) -> None:
        """The job has ended and left nothing: end the guardian."""
        if not self._kept:
            self._write_line(GOODBYE)
        self._end_process()

    def _start(self) -> None:
        """Start a guardian, and tell it everything.

        :raises OSError: there can be none. Then nothing of it is left.
        """
        read, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = self._popen(read)
            self._exit_fd = os.pidfd_open(self._process.pid)
            self._loop.watch(self._exit_fd, self._replace)
        except OSError:
            self._end_process()
            raise
        finally:
            os.close(read)
        os.set_blocking(self._pipe, False)
        for session, start in self._sessions.items():
            self._write_line(b"session %d %d" % (session, start))
        if self._revocation is not None:
            self._send_revocation()

    def _popen(self, read: int) -> subprocess.Popen[bytes]:
        home = str(Path(llutil.__file__).parent.parent)
        code = (
            f"import sys; sys.path.append({home!r}); "
            f"from llutil.agent.guardian.main import main; "
            f"main({read}, {self._mark!r}, {os.getpid()})"
        )
        # With -I and -S, no environment variable, site-packages or working directory can keep the
        # guardian from starting. TMPDIR says where the event page is if there is no /dev/shm, TERM
        # what the terminal understands.
        kept = ("TMPDIR", "TERM")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(read,),
            start_new_session=True,
            env=environment | {GUARDIAN_VARIABLE: self._mark},
        )

    def _replace(self) -> None:
        """The guardian was killed: start another, unless it dies again and again."""
        self._end_process()
        self._deaths.append(time.monotonic())
        if len(self._deaths) == _MAX_DEATHS and self._deaths[-1] - self._deaths[0] < _DEATHS_PERIOD:
            text = "the guardian has died %d times in %.0f s; %s"
            _log.error(text, _MAX_DEATHS, _DEATHS_PERIOD, _WITHOUT)
            return
        _log.warning("the guardian died; the agent starts another one")
        try:
            self._start()
        except OSError as error:  # this machine has no memory, processes or descriptors left
            _log.error("no other guardian can be started (%s); %s", error, _WITHOUT)

    def _end_process(self) -> None:
        """End the guardian, if there is one, and keep nothing of it."""
        process, self._process = self._process, None
        if process is not None:
            # It has nothing to do any more. It may not read that: it may still be starting, or be
            # stopped by a signal. So it is killed, before it can take the closed pipe for our
            # death.
            process.kill()
        patience = HELPER_ENDED
        if self._exit_fd >= 0:
            self._loop.unwatch(self._exit_fd)
            if process is not None:
                poll = select.poll()  # Popen's own wait looks again and again
                poll.register(self._exit_fd, select.POLLIN)
                poll.poll(1000 * HELPER_ENDED)
                patience = 0.0
            os.close(self._exit_fd)
            self._exit_fd = -1
        self._close_pipe()
        if process is None:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            text = "the guardian, process %d, still exists %g s after SIGKILL"
            _log.warning(text, process.pid, HELPER_ENDED)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.unwatch(self._pipe)
            os.close(self._pipe)
        self._pipe = -1
        self._unwritten = b""

    def _send_revocation(self) -> None:
        revocation = self._revocation.to_json() if self._revocation is not None else None
        self._write_line(b"revocation " + json.dumps(revocation).encode())

    def _write_line(self, line: bytes) -> None:
        """Write a line, or keep it until the pipe has room. The agent's loop must not wait for a
        guardian that is stopped or slow.
        """
        if self._pipe < 0:
            return
        waits = bool(self._unwritten)
        self._unwritten += line + b"\n"
        if not waits:
            self._write()
        elif len(self._unwritten) > _MAX_UNWRITTEN and self._process is not None:
            _log.warning("the guardian, process %d, reads nothing: it is killed", self.pid)
            self._process.kill()  # the loop notices that, and tells everything to another one
            self._close_pipe()

    def _write(self) -> None:
        """Write what there is room for, and watch for more room if that was not all."""
        try:
            written = os.write(self._pipe, self._unwritten)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:  # it was just killed: the loop will notice, and start another one
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        self._loop.unwatch(self._pipe)
        if self._unwritten:
            self._loop.watch(self._pipe, self._write, EVENT_WRITE)
