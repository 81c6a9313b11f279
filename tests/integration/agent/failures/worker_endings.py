"""Ways for a rank to end, what must come of each, and the code that ends so: a function and a
script at once.

``WAYS`` is the table. A job of two ranks is played: rank 1 ends in the way of the row, and rank 0
is its peer, on the same node or on another one. ``play`` is the function; this file itself is the
script. Without torch, but for the row whose subject is a collective of torch's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[4]))

from tests.support import worker_functions

__all__ = ["ABSENT", "WAYS", "Way", "play"]

ABSENT = "(a script has no result)"
"""In place of a script's reason: there is nothing to play."""

_FOREVER = 300.0  # seconds: longer than any deadline of a test


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What becomes of a job whose rank 1 ends in this way: as a ``function`` and as a ``script``.

    None: the job succeeds. A text: it fails, and this is in the report, after "rank" and the rank's
    number. ``peer`` is what rank 0 does: as a default, what the verdict needs: it ends well too, or
    it waits for what never comes. ``fails``: it fails with exit code 3 once rank 1 runs, since
    nothing else would end the job. ``is killed``: the same, by SIGKILL. ``grace`` says that rank 1
    hears no stop, so that the end takes a grace period; ``torch`` that the ranks need it.
    """

    function: str | None
    script: str | None
    peer: str = ""
    grace: bool = False
    torch: bool = False

    def reason(self, kind: str) -> str | None:
        """What the report says of a job of this kind, "function" or "script"."""
        return self.function if kind == "function" else self.script


_KILLED = "1: signal 9 (SIGKILL: "
_FAULT = "1: signal 11 (SIGSEGV: a memory fault in native code)"
_PEER = "0: exit code 3"

WAYS = {
    "return": Way(function=None, script=None),
    "raise": Way(function="1: ValueError: no such digit", script="1: ValueError: no such digit"),
    "sys.exit(3)": Way(
        function="1: SystemExit: the function called sys.exit(3) and returned no value",
        script="1: exit code 3",
    ),
    "os._exit(0)": Way(function="1: ended with exit code 0 but returned no value", script=None),
    "os._exit(1)": Way(function="1: exit code 1", script="1: exit code 1"),
    "SIGKILL": Way(function=_KILLED, script=_KILLED),
    "SIGSEGV": Way(function=_FAULT, script=_FAULT),
    "SIGINT": Way(function="1: KeyboardInterrupt", script="1: KeyboardInterrupt"),
    "SIGTERM": Way(function="1: signal 15 (SIGTERM", script="1: signal 15 (SIGTERM"),
    "SIGTERM ignored": Way(function=_PEER, script=_PEER, peer="fails", grace=True),
    "killed while its result is being written": Way(function=_KILLED, script=ABSENT),
    "a big result": Way(function=None, script=ABSENT),
    "a child that holds stdout": Way(function=None, script=None),
    "a child that holds stdout, after a failure": Way(
        function="1: exit code 1", script="1: exit code 1"
    ),
    # It has returned, and has not ended: it is killable.
    "a thread that never ends": Way(function=_PEER, script=_PEER, peer="fails"),
    "a deadlocked collective after its peer died": Way(
        function="0: signal 9 (SIGKILL",
        script="0: signal 9 (SIGKILL",
        peer="is killed",
        torch=True,
    ),
    "stdout closed": Way(function=None, script=None),
}


def play(kind: str, how: str, folder: str, size: int = 0) -> Any:
    """Be rank 0 or rank 1 of the row ``how``. ``size`` is how many bytes a result has whose size
    matters.
    """
    way = WAYS[how]
    if os.environ["RANK"] == "1":
        worker_functions.announce(folder)
        return _end(how, folder, size)
    reason = way.reason(kind)
    if reason is None:
        return "peer"
    worker_functions.announce(folder)
    if reason.startswith("0"):
        while not Path(folder, "deaf" if way.grace else "running-1").exists():
            time.sleep(0.01)
        if not way.grace:
            time.sleep(0.2)  # for rank 1 to be where it ends
        if way.peer == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)
    time.sleep(_FOREVER)
    raise AssertionError("nobody ended the peer")


def _end(how: str, folder: str, size: int) -> Any:
    match how:
        case "return":
            return "value"
        case "raise" | "sys.exit(3)" | "os._exit(0)" | "os._exit(1)":
            return worker_functions.end(how)
        case "SIGKILL" | "SIGSEGV" | "SIGINT" | "SIGTERM":
            return worker_functions.end(how)
        case "SIGTERM ignored":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(folder, "deaf").touch()
            time.sleep(_FOREVER)
        case "killed while its result is being written":
            return worker_functions.killed_while_writing_its_result(size)
        case "a big result":
            return worker_functions.returns_much(size)
        case "a child that holds stdout":
            _leave_a_child(folder)
            return "value"
        case "a child that holds stdout, after a failure":
            _leave_a_child(folder)
            os._exit(1)
        case "a thread that never ends":
            threading.Thread(target=time.sleep, args=(_FOREVER,)).start()
            return "value"
        case "a deadlocked collective after its peer died":
            _wait_for_all()
        case "stdout closed":
            os.close(1)
            return "value"
    raise AssertionError(how)


def _leave_a_child(folder: str) -> None:
    child = subprocess.Popen(["sleep", str(_FOREVER)])
    Path(folder, "child-1").write_text(str(child.pid))


def _wait_for_all() -> NoReturn:
    """A barrier whose other side is gone: it waits in native code, where no handler of Python's
    runs.
    """
    from datetime import timedelta

    import torch.distributed as dist

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as a script that saves does
    patience = timedelta(seconds=_FOREVER)
    dist.init_process_group("gloo", timeout=patience)
    dist.barrier()
    raise AssertionError("the peer was there")


if __name__ == "__main__":
    play("script", sys.argv[1], sys.argv[2])
