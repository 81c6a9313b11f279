"""One try of a task instance at a time on a host: the next one waits for what an earlier one has left at work.

When Airflow kills a task, its agent goes on for its grace period, to save. A next try that began meanwhile would read
a checkpoint that is still being written, and share the GPUs. So a try holds a lock, and its agent holds it too: the
kernel lets go of it when the last of them ends, however it ends. Who waits longer than an agent may take ends them by
force: Airflow has given that try up, or there would be no next one.

Nothing here knows what the processes do. This module imports nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["Turn"]

_LOOK = 0.25  # seconds between two looks at a lock that others hold
_ENDED_WITHIN = 15.0  # seconds from an agent's SIGKILL until its guardian has ended all that it had


class Turn:
    """The turn of the task instance that is called ``slug``; ``fd`` is to be inherited by its agent.

    :param folder: where the lock is.
    """

    def __init__(self, folder: Path, slug: str) -> None:
        self._path = folder / f"{slug}.turn"
        self.fd = self._open()
        self._mine = False
        self._agent = _NOBODY

    def take(
        self,
        patience: float,
        *,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> bool:
        """Wait until no earlier try is at work, ``patience`` seconds at most; then end it by force. Whether it is gone.

        Gives up when ``stopped()``, which cuts ``sleep`` short.
        """
        if self._locked():
            return True
        say(
            f"an earlier try of this task is still at work on this host{self._holders()}; waiting for it, "
            f"{patience:g} s at most"
        )
        if self._wait(patience, sleep, stopped):
            return True
        if stopped():
            return False
        task, agent = self._noted()
        say(f"the earlier try is still at work after {patience:g} s{self._holders()}: SIGKILL")
        # The task first, which would launch another agent; the guardian of this one ends the workers.
        task.kill()
        agent.kill()
        if self._wait(_ENDED_WITHIN, sleep, stopped):
            return True
        if not stopped():
            say("the earlier try cannot be ended from here; this one begins beside it")
        return False

    def note(self, agent: int) -> None:
        """Leave word that the process ``agent``, which leads its group, is the agent of this try."""
        self._agent = _Process.of(agent)
        self._write()

    def close(self) -> None:
        """Let go of it. If the agent still runs, it has the turn until it ends."""
        if self._mine and self._is_there() and not self._agent.lives:
            self._path.unlink()
        os.close(self.fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _wait(
        self, seconds: float, sleep: Callable[[float], None], stopped: Callable[[], bool]
    ) -> bool:
        until = time.monotonic() + seconds
        while not stopped() and time.monotonic() < until:
            sleep(_LOOK)
            if self._locked():
                return True
        return False

    def _locked(self) -> bool:
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._is_there():
                self._mine = True
                self._write()
                return True
            # Who had it has removed the file since it was opened here, and others open another one.
            os.close(self.fd)
            self.fd = self._open()

    def _is_there(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.fd), self._path.stat())
        return False

    def _write(self) -> None:
        known = [_Process.of(os.getpid()), self._agent]
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps([[one.pid, one.begun] for one in known]).encode(), 0)

    def _noted(self) -> tuple[_Process, _Process]:
        """The earlier try's task and agent, as far as it has left word."""
        try:
            task, agent = json.loads(os.pread(self.fd, 4096, 0))
            return _Process(*task), _Process(*agent)
        except (TypeError, ValueError):
            return _NOBODY, _NOBODY

    def _holders(self) -> str:
        names = zip(("task", "agent"), self._noted(), strict=True)
        living = [f"its {name} is process {one.pid}" for name, one in names if one.lives]
        return f" ({', '.join(living)})" if living else ""


class _Process:
    """The process of that number that began at that time, in the kernel's ticks; empty if there was none."""

    def __init__(self, pid: int, begun: str) -> None:
        self.pid = pid
        self.begun = begun

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, _begun(pid))

    @property
    def lives(self) -> bool:
        return self.begun != "" and _begun(self.pid) == self.begun

    def kill(self) -> None:
        """SIGKILL it, and its group if it leads one."""
        if self.lives:
            with suppress(ProcessLookupError):
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    os.kill(self.pid, signal.SIGKILL)


def _begun(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "" if state in {"Z", "X"} else fields[18]


_NOBODY = _Process(0, "")
