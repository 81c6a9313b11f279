"""torch's watchdog of expired timers and its health check, where the environment asks for them.

With ``TORCHELASTIC_ENABLE_FILE_TIMER=1`` ranks may set timers over a named pipe, by torch's
``FileTimerClient``, and a process whose timer expires is ended. With
``TORCHELASTIC_HEALTH_CHECK_PORT`` torch's health check is started; in torch 2.13 as it is published
that one only logs that it does nothing. This module imports torch.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

from torch.distributed.elastic.agent.server.health_check_server import create_healthcheck_server
from torch.distributed.elastic.timer import FileTimerServer

from llutil.errors import ConfigError
from llutil.system.process_table import stat_of
from llutil.system.send_signal import Sent, send_signal

__all__ = ["TIMER_FILE", "start_health_check", "start_watchdog"]

_log = logging.getLogger(__name__)

TIMER_FILE = "TORCHELASTIC_TIMER_FILE"
"""The pipe over which ranks set timers for torch's watchdog; a name may be given."""
_ENABLED = "TORCHELASTIC_ENABLE_FILE_TIMER"
"""With "1", torch's watchdog of timers runs, and ends a rank whose timer expires. The launcher is
not ended, as torch's is.
"""
_HEALTH_CHECK_PORT = "TORCHELASTIC_HEALTH_CHECK_PORT"
"""The port of torch's health check, which does nothing in torch as it is published."""
# Seconds between two looks at the timers, as in torch's agent.
_PERIOD = 0.1
# Seconds without a sign of life after which a health check may call an agent dead, as in torch.
_HEALTH_TIMEOUT = 60


class _Watchdog(FileTimerServer):
    """torch's server of timers, which signals only descendants of this process.

    torch's own then kills its launcher too. Here the rank has failed, and the job goes on as after
    any failure.
    """

    def __init__(self, path: str, run_id: str) -> None:
        super().__init__(path, run_id, max_interval=_PERIOD, daemon=True)
        Path(path).chmod(0o600)

    def _reap_worker(self, worker_pid: int, signal: int) -> bool:
        if worker_pid == os.getpid():
            return True
        stat = stat_of(worker_pid)
        if stat is None or not _descends_from_here(worker_pid):
            return True
        _log.error("a timer of process %d has expired; it gets signal %d", worker_pid, signal)
        return send_signal(worker_pid, stat.start, signal) is not Sent.REFUSED

    def close(self) -> None:
        """End the thread, which waits for a first client until somebody opens the pipe."""
        self._stop_signaled = True
        with suppress(OSError):
            os.close(os.open(self._file_path, os.O_RDWR | os.O_NONBLOCK))
        self.stop()


def _descends_from_here(pid: int) -> bool:
    while pid > 1:
        stat = stat_of(pid)
        if stat is None:
            return False
        pid = stat.parent
        if pid == os.getpid():
            return True
    return False


def start_watchdog(run_id: str, stack: ExitStack) -> str:
    """Start the watchdog, if it is wanted, until ``stack`` is closed. Returns the path of its pipe,
    which ranks find as TORCHELASTIC_TIMER_FILE; "" if there is none.

    :raises ConfigError: the pipe cannot be made.
    """
    path = os.environ.get(TIMER_FILE, "")
    if os.environ.get(_ENABLED) != "1":
        return path
    path = path or str(Path(tempfile.gettempdir(), f"watchdog_timer_{uuid.uuid4()}"))
    try:
        watchdog = _Watchdog(path, run_id)
    except OSError as error:
        raise ConfigError(f"{TIMER_FILE} {path} cannot be made: {error.strerror}") from error
    stack.callback(watchdog.close)
    watchdog.start()
    return path


def start_health_check(stack: ExitStack) -> None:
    """Start torch's health check, if it is wanted, until ``stack`` is closed."""
    port = os.environ.get(_HEALTH_CHECK_PORT)
    if port is None:
        return
    if not port.isdecimal():
        _log.warning(
            "%s is %r; wanted a port. No health check is started", _HEALTH_CHECK_PORT, port
        )
        return
    now = time.time  # noqa: TID251 - what torch's health check wants of a launcher that is alive
    server = create_healthcheck_server(lambda: int(now()), int(port), _HEALTH_TIMEOUT)
    stack.callback(server.stop)
    server.start()
