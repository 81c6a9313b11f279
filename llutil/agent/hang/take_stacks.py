"""Takes the Python stacks of processes: by py-spy where it is installed, else by faulthandler.

py-spy stops a process and reads its memory; where that is not allowed, as in some containers, it
fails, and the process is asked by a signal (``worker_side.stack_signal``). A process that handles
no such signal is sent none. Everything is bounded in time, and no process is waited for alone.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llutil.agent.hang.stack_text import Stack, of_faulthandler, of_py_spy
from llutil.agent.worker_side.stack_signal import STACK_SIGNAL, stack_file_name
from llutil.system.process_table import stat_of
from llutil.system.send_signal import send_signal

__all__ = ["TakenStack", "stacks_of"]

# Seconds for py-spy, and then for faulthandler.
_SPY_TIME, _SIGNAL_TIME = 5.0, 2.0
# Seconds for the kernel to end a py-spy that took too long.
_KILLED = 1.0
# Seconds between two looks at what has been written.
_PERIOD = 0.02
# Seconds in which a dump that is not complete would have grown. Its last line does not say so.
_SETTLED = 0.1


@dataclass(frozen=True, slots=True)
class TakenStack:
    """The stacks of one process: as a value, and the text that shows all threads. Without a stack,
    ``unknown`` says why there is none.
    """

    stack: Stack | None = None
    text: str = ""
    unknown: str = ""


def stacks_of(pids: Collection[int], wait: Callable[[float], None]) -> dict[int, TakenStack]:
    """The stacks of the processes ``pids``. ``wait`` is called with a time on ``time.monotonic()``,
    and returns then or before.
    """
    spied = _by_py_spy(pids)
    taken = {pid: one for pid, one in spied.items() if one.stack}
    return taken | _by_signal([pid for pid in pids if pid not in taken], wait)


def _by_py_spy(pids: Iterable[int]) -> dict[int, TakenStack]:
    program = _py_spy()
    if program is None:
        return {}
    asked: dict[int, subprocess.Popen[str]] = {}
    with suppress(OSError):
        for pid in pids:
            asked[pid] = subprocess.Popen(
                [program, "dump", "--full-filenames", "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
    taken = {}
    deadline = time.monotonic() + _SPY_TIME
    for pid, process in asked.items():
        try:
            text, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            text = ""
            with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: then it is left alone
                text, _ = process.communicate(timeout=_KILLED)
        # The first lines repeat the command line, which may hold what nobody should read in a log.
        threads = text[max(text.find("\nThread "), 0) :].strip()
        taken[pid] = TakenStack(of_py_spy(text), threads)
    return taken


def _py_spy() -> str | None:
    """The program, on the PATH or beside the interpreter."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))


def _by_signal(pids: Iterable[int], wait: Callable[[float], None]) -> dict[int, TakenStack]:
    taken: dict[int, TakenStack] = {}
    files: dict[int, tuple[str, int]] = {}
    for pid in pids:
        found = _ask(pid)
        if isinstance(found, str):
            taken[pid] = TakenStack(unknown=found)
        else:
            files[pid] = found
    texts = dict.fromkeys(files, "")
    grown = now = time.monotonic()
    deadline = now + _SIGNAL_TIME
    while now < deadline and ("" in texts.values() or now < grown + _SETTLED):
        wait(now + _PERIOD)
        now = time.monotonic()
        for pid, (path, start) in files.items():
            text = _read(path, start)
            if text != texts[pid]:
                texts[pid], grown = text, now
    for pid, text in texts.items():
        stack = of_faulthandler(text)
        taken[pid] = TakenStack(stack, text, "" if stack else f"it wrote none ({_state(pid)})")
    return taken


def _ask(pid: int) -> tuple[str, int] | str:
    """Ask ``pid`` for its stacks: the file that it writes them to, and from which byte on; or why
    it cannot be asked.
    """
    stat = stat_of(pid)
    if stat is None or not stat.lives:
        return "its process has ended"
    if not _handles(pid):
        return "it is no Python program that the launcher started; py-spy may show its stacks"
    path = _memory_file(pid)
    if path is None:
        return "it has closed the file for its stacks"
    size = len(_read(path, 0))
    send_signal(pid, stat.start, STACK_SIGNAL)
    return path, size


def _handles(pid: int) -> bool:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().split("\n"):
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (STACK_SIGNAL - 1) & 1)
    return False


def _memory_file(pid: int) -> str | None:
    wanted = f"/memfd:{stack_file_name(pid)}"
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()).startswith(wanted):
                    return str(entry)
    return None


def _read(path: str, start: int) -> str:
    with suppress(OSError):
        return Path(path).read_bytes()[start:].decode(errors="replace")
    return ""


def _state(pid: int) -> str:
    stat = stat_of(pid)
    if stat is None or not stat.lives:
        return "its process has ended"
    match stat.state:
        case "T":
            return f"it is stopped, as by signal {signal.SIGSTOP.value}"
        case "t":
            return "a debugger holds it"
        case "D":
            return "it waits for a disk or a device, in the kernel"
        case state:
            return f"its state is {state}"
