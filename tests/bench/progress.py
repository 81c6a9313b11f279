"""What one progress report costs a training step, and what it takes to wake who waits for a flag.

The goal is less than 1 microsecond for one ``worker.progress`` and for one ``worker.step``, and
less than 2 for a step with its total and a metric. What ``multiprocessing`` offers for
the same purpose stands beside it. Each figure is the best of several runs, since noise only ever
adds.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import timeit
from collections.abc import Callable
from multiprocessing.synchronize import Event

from llutil import worker
from llutil.events.events import ENVIRONMENT, Events, Flag

_CALLS, _RUNS, _WAKES = 100_000, 7, 50


def main() -> None:
    """Print the table."""
    with Events() as page:
        os.environ |= {ENVIRONMENT: page.path, "LOCAL_RANK": "0"}
        try:
            rows = _rows(page)
        finally:
            del os.environ[ENVIRONMENT], os.environ["LOCAL_RANK"]
            worker.events().close()
    print("progress and flags, one process")
    for name, seconds in rows:
        print(f"  {name:<58} {seconds * 1e9:>10,.0f} ns")


def _rows(page: Events) -> list[tuple[str, float]]:
    slot, attached = page.slot(0), Events.attach(page.path, local_rank=0)
    value, bare = multiprocessing.Value("q", 0), multiprocessing.Value("q", 0, lock=False)
    pair = multiprocessing.Array("q", 2)
    event = multiprocessing.get_context("spawn").Event()
    flag, bar, inherited = page.pause, attached.progress_bar_iter, page.progress_bar_iter

    def locked_pair() -> None:
        with pair:
            pair[0] = 5
            pair[1] = 10

    rows = [
        ("worker.progress(5)", _cost(lambda: worker.progress(5))),
        ("worker.progress(5, 10)", _cost(lambda: worker.progress(5, 10))),
        ("worker.step(5)", _cost(lambda: worker.step(5))),
        ("worker.step(5, 10, loss=0.5)", _cost(lambda: worker.step(5, 10, loss=0.5))),
        ("Slot.report(5, 10)", _cost(lambda: slot.report(5, 10))),
        ("progress_bar_iter.value = 5, attached as a rank", _cost(lambda: _assign(bar))),
        ("progress_bar_iter.value = 5, rank by environment", _cost(lambda: _assign(inherited))),
        ("multiprocessing.Value.value = 5, no lock, no heartbeat", _cost(lambda: _assign(bare))),
        ("multiprocessing.Value.value = 5", _cost(lambda: _assign(value))),
        ("multiprocessing.Array: step and total under its lock", _cost(locked_pair)),
        ("Flag.is_set()", _cost(flag.is_set)),
        ("multiprocessing.Event.is_set()", _cost(event.is_set)),
        ("Flag.set(), nobody waits", _cost(flag.set)),
        ("multiprocessing.Event.set(), nobody waits", _cost(event.set)),
        ("Events.progress(), the agent's look at all slots", _cost(page.progress)),
        ("Flag: set() to the return of wait(), another process", _wake(flag, _wait_flag)),
        ("multiprocessing.Event: the same", _wake(event, _wait_event)),
    ]
    attached.close()
    return rows


def _assign(target: object) -> None:
    target.value = 5  # type: ignore[attr-defined]  # ours and multiprocessing's have it


def _cost(call: Callable[[], object]) -> float:
    """Seconds of one call, less what calling a function that does nothing takes."""
    best = min(timeit.repeat(call, number=_CALLS, repeat=_RUNS))
    nothing = min(timeit.repeat(lambda: None, number=_CALLS, repeat=_RUNS))
    return (best - nothing) / _CALLS


def _wake(signal: Flag | Event, wait: Callable[[Flag | Event], None]) -> float:
    """Seconds from raising ``signal`` to the return of a wait for it in a forked process, the
    median.
    """
    delays = []
    for _ in range(_WAKES):
        signal.clear()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b" ")
            wait(signal)
            os.write(writer, time.monotonic_ns().to_bytes(8, "big"))
            os._exit(0)
        os.read(reader, 1)
        time.sleep(0.002)  # it is about to sleep, and nothing tells from outside that it does
        raised = time.monotonic_ns()
        signal.set()
        delays.append(int.from_bytes(os.read(reader, 8), "big") - raised)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    return sorted(delays)[_WAKES // 2] / 1e9


def _wait_flag(signal: Flag | Event) -> None:
    assert isinstance(signal, Flag)
    signal.wait(time.monotonic() + 10)


def _wait_event(signal: Flag | Event) -> None:
    assert isinstance(signal, Event)
    signal.wait(10)


if __name__ == "__main__":
    main()
