"""What workers do in the tests of launches: plain functions that import next to nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from llutil.errors import ConfigError
from tests.support.privileges import ANOTHER_USER


def rank_and(value: Any) -> tuple[int, Any]:
    """Who was asked, and with what."""
    return int(os.environ["RANK"]), value


def finish_in_reverse_order(folder: str) -> int:
    """The last rank returns first: each waits until the one after it has left its mark."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    while rank + 1 < world and not Path(folder, str(rank + 1)).exists():
        time.sleep(0.01)
    Path(folder, str(rank)).touch()
    time.sleep(0.05)
    return rank


def environment() -> dict[str, str]:
    """The worker's environment."""
    return dict(os.environ)


def fail_until(restart: int, folder: str) -> str:
    """Fail on every rank until the restart count is ``restart``; leave a mark for each start."""
    count = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    Path(folder, f"start-{count}-rank-{os.environ['RANK']}").touch()
    if count < restart:
        raise ValueError(f"not yet: {count}")
    return os.environ["TORCHELASTIC_RESTART_COUNT"]


def report_progress_and_fail_once() -> dict[int, tuple[int, int]]:
    """Report more in the first round than in the second, and return what the page then says."""
    from llutil import worker

    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    worker.progress(9 if first else 1, 10)
    if first:
        raise ValueError("once")
    return worker.events().progress()


def progress_and_fail_twice() -> None:
    """Make steps in the first round alone, and fail in each."""
    from llutil import worker

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        worker.progress(9, 10)
        raise ValueError("once")
    raise ValueError("again")


def announce(folder: str) -> None:
    """Say that this rank runs, by a file that holds its process number."""
    path = Path(folder, f"running-{os.environ['RANK']}")
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)


def sleep(folder: str) -> None:
    """Run until stopped."""
    announce(folder)
    time.sleep(60)


def save_when_stopped(folder: str, seconds: float) -> None:
    """Take so many seconds to save once asked to stop, and then end."""

    def save(*_: object) -> NoReturn:
        time.sleep(seconds)
        Path(folder, f"saved-{os.environ['RANK']}").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
    announce(folder)
    time.sleep(60)


def ignore_stops(folder: str) -> None:
    """Run on whatever is asked."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    announce(folder)
    time.sleep(60)


def speak() -> None:
    """A line on each stream, and one from a child."""
    rank = os.environ["RANK"]
    # In one piece, so that ranks may share a stream: print writes the end of a line by itself.
    sys.stdout.write(f"out {rank}\n")
    sys.stderr.write(f"err {rank}\n")
    sys.stdout.flush()
    subprocess.run(["echo", f"child {rank}"], check=True)


def say(text: str) -> None:
    """Print it."""
    print(text, flush=True)


def announce_and_return(folder: str, seconds: float) -> str:
    """Run for so many seconds."""
    announce(folder)
    time.sleep(seconds)
    return "done"


HIDDEN = "setsid env -i sleep 60"
"""A program that keeps nothing of the job: neither the session nor the environment."""


def hide_children(folder: str, seconds: float = 60, hidden: str = HIDDEN) -> None:
    """Have a child, one in a session of its own, and an orphan, ``hidden``; ignore every stop."""
    rank = os.environ["RANK"]
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)  # which children inherit
    pids = [subprocess.Popen(["sleep", "60"], start_new_session=own).pid for own in (False, True)]
    orphan = f"{hidden} > /dev/null & echo $!"
    done = subprocess.run(["sh", "-c", orphan], stdout=subprocess.PIPE, text=True, check=True)
    for number, pid in enumerate([*pids, int(done.stdout)]):
        Path(folder, f"child-{rank}{number}").write_text(str(pid))
    Path(folder, "page").write_text(os.environ["LLUTIL_EVENTS"])
    announce(folder)
    time.sleep(seconds)


def haunt(folder: str) -> None:
    """The same, with a folder for each start."""
    own = Path(folder, os.environ["TORCHELASTIC_RESTART_COUNT"])
    own.mkdir(exist_ok=True)
    # Were the fork server killed, nobody could find an orphan with another environment.
    hide_children(str(own), 300, "setsid sleep 60")


def hide_children_and_be_killed(folder: str) -> NoReturn:
    """The same, and then die by SIGKILL."""
    hide_children(folder, 0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def chatter_and_hide_children(folder: str) -> None:
    """The same, while it prints without end."""
    threading.Thread(target=hide_children, args=(folder,), daemon=True).start()
    while True:
        print("words " * 20)


def chatter(count: int, size: int) -> None:
    """So many numbered lines."""
    for number in range(count):
        print(f"{number} {'x' * size}")


def count_until_stopped(folder: str) -> NoReturn:
    """Print one number after the other; the last one is in a file."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    number = 0
    print(number, flush=True)
    while not stop.wait(0.002):
        number += 1
        print(number, flush=True)
    Path(folder, "last").write_text(str(number))
    sys.exit(0)


def print_much(folder: str, lines: int) -> None:
    """Print so many lines of 60 bytes, as fast as they are taken, and then make a file."""
    for first in range(0, lines, 1000):
        block = memoryview(b"".join(b"%59d\n" % number for number in range(first, first + 1000)))
        while block:
            block = block[os.write(1, block) :]
    Path(folder, "printed").touch()


def wait_until_told(folder: str) -> None:
    """Wait for a file, for a minute at most."""
    for _ in range(6000):
        if Path(folder, "told").exists():
            return
        time.sleep(0.01)


def speak_and_wait(folder: str) -> None:
    """A line on each stream, and then wait."""
    rank = os.environ["RANK"]
    print(f"stdout of {rank}", flush=True)
    print(f"stderr of {rank}", file=sys.stderr, flush=True)
    wait_until_told(folder)


def progress_until_told(folder: str) -> None:
    """Report steps until told."""
    from llutil import worker

    step = 0
    while not Path(folder, "told").exists():
        step += 1
        worker.progress(step, 100)
        time.sleep(0.01)
    worker.progress(100 + worker.rank(), 100)


def launch_within(value: Any) -> dict[int, list[Any]]:
    """Launch, as a worker, and hand on what came back."""
    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    found = launch_agent(LaunchConfig(1, 1, 2, start_method="fork"), rank_and, [value])
    return {rank: list(pair) for rank, pair in found.items()}


def leave_children(folder: str) -> str:
    """Return, with a child, an orphan in a session of its own, and one that holds the output."""
    for own_session in (False, True):
        child = subprocess.Popen(["sleep", "60"], start_new_session=own_session)
        Path(folder, f"child-{child.pid}").touch()
    # Its parent, a shell, is gone at once.
    orphan = f"{HIDDEN} > /dev/null & echo $!"
    pid = subprocess.run(["sh", "-c", orphan], stdout=subprocess.PIPE, text=True, check=True).stdout
    Path(folder, f"child-{int(pid)}").touch()
    return "done"


def leave_a_thread() -> str:
    """Return while a daemon thread that nothing ends goes on."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return "done"


def returns_much(size: int) -> bytes:
    """So many bytes."""
    return os.urandom(8) * (size // 8)


class Unpicklable:
    """Refuses."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("not on my watch")


def returns_bytes_on_rank_0(others: Any) -> Any:
    """And ``others`` on all others."""
    return b"raw" if os.environ["RANK"] == "0" else others


def returns_what_cannot_be_pickled(logs: str) -> Any:
    """On rank 0. The others go on until that is kept below the folder ``logs``, and return then."""
    if os.environ["RANK"] == "0":
        return {"loss": 0.5, "refuses": Unpicklable()}
    while not list(Path(logs).glob("*/results/rank_0.pickle")):
        time.sleep(0.01)
    return "fine"


def end(how: str) -> Any:
    """End in one of many ways."""
    sys.stdout.write("last words on stdout\n")
    sys.stdout.flush()
    sys.stderr.write("last words on stderr\n")
    sys.stderr.flush()
    match how:
        case "raise":
            raise ValueError("no such digit")
        case "sys.exit(3)":
            sys.exit(3)
        case "os._exit(0)":
            os._exit(0)
        case "os._exit(1)":
            os._exit(1)
        case "SIGKILL" | "SIGSEGV" | "SIGINT" | "SIGABRT" | "SIGTERM":
            os.kill(os.getpid(), signal.Signals[how])
            time.sleep(10)
            return "survived"
        case "lambda":
            return (lambda: 42), {"key": [1, 2]}
        case "closed stdout":
            os.close(1)
            os.close(2)
            return "closed"
        case "closed sys.stdout":
            sys.stdout.close()
            sys.stderr.close()
            return "closed"
        case "raise without stderr":
            sys.stderr.close()
            raise ConfigError("one thing is wrong")
        case "everything closed":
            os.closerange(0, 1000)
            return "closed"
        case "all descriptors closed":
            os.closerange(3, 1000)
            raise ValueError("no such digit")
        case "an error that cannot be shown":
            raise Unshowable
        case "an excepthook that fails":
            sys.excepthook = lambda *_: sys.exit(5)
            raise ValueError("no such digit")
        case "an excepthook that ends the process":
            sys.excepthook = lambda *_: os._exit(5)
            raise ValueError("no such digit")
        case "a recursion":
            return end(how)
        case "out of memory":
            return bytearray(1 << 62)
        case _:
            raise AssertionError(how)


def fail_on_rank_1(folder: str) -> None:
    """Rank 1 fails, and takes its time to end; rank 0 loses its peer before that is over."""
    if os.environ["RANK"] == "0":
        while not Path(folder, "running-1").exists():
            time.sleep(0.01)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:7")
    print("loading", file=sys.stderr)
    announce(folder)
    time.sleep(0.5)
    raise ValueError("no such digit\n" + "☃" * 5000)


def die_while_asked_to_end(folder: str) -> None:
    """Rank 1 dies of SIGKILL, and is asked to end before anybody sees it; rank 0 has lost its peer
    by then.
    """
    if os.environ["RANK"] == "0":
        while not Path(folder, "running-1").exists():
            time.sleep(0.01)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:7")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    announce(folder)
    time.sleep(60)


class Unshowable(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("nor this")


def killed_while_writing_its_result(size: int) -> bytes:
    """Have this process killed once some of the result, which is longer than a pipe, is on its
    way.
    """

    def waiting(pipe: int) -> int:
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)

    def kill() -> None:
        pipes = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_fifo()]
        while not any(waiting(pipe) for pipe in pipes if pipe > 2):
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    return bytes(size)


def start_as_another_user(folder: str) -> None:
    """Start a program that has set another user, as ``su`` does, and say its number."""
    child = subprocess.Popen(["sleep", "60"], user=ANOTHER_USER)
    while Path(f"/proc/{child.pid}/cmdline").read_bytes() != b"sleep\x0060\0":
        time.sleep(0.01)  # it is still on its way to the other user
    Path(folder, f"refused-{child.pid}").write_text(str(child.pid))


def start_as_another_user_and_fail(folder: str) -> NoReturn:
    """The same, and then fail."""
    start_as_another_user(folder)
    raise ValueError("no such digit")


def hide_children_and_one_of_another_user(folder: str) -> None:
    """Both."""
    start_as_another_user(folder)
    hide_children(folder)
