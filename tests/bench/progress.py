"""What one report of progress costs a training step, and what it takes to wake who waits for a
flag, beside what multiprocessing offers for the same.

One process, in which each call is made a hundred thousand times; what a call of a function that
does nothing takes is subtracted.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import timeit
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

from llutil import worker
from llutil.events.events import ENVIRONMENT, Events, Flag
from tests.bench.report.measurement import Goal, Measurement, Sample

__all__ = ["measure"]

_CALLS, _RUNS, _WAKES = 100_000, 7, 50


_FREE = 1e-6  # seconds, as a goal for a report
_RICH = 2e-6


def measure() -> Iterator[Measurement]:
    """What reports and flags cost."""
    with Events() as page:
        os.environ |= {ENVIRONMENT: page.path, "LOCAL_RANK": "0"}
        try:
            yield from _figures(page)
        finally:
            del os.environ[ENVIRONMENT], os.environ["LOCAL_RANK"]
            worker.events().close()


def _figures(page: Events) -> Iterator[Measurement]:
    attached = Events.attach(page.path, local_rank=0)
    value, bare = multiprocessing.Value("q", 0), multiprocessing.Value("q", 0, lock=False)
    pair = multiprocessing.Array("q", 2)
    event = multiprocessing.get_context("spawn").Event()
    flag, bar = page.pause, attached.progress_bar_iter

    def locked_pair() -> None:
        with pair:
            pair[0] = 5
            pair[1] = 10

    one = "multiprocessing.Value, assigned"
    both = "multiprocessing.Array, two values under its lock"
    values, pairs = _costs(lambda: _assign(value)), _costs(locked_pair)
    yield _figure("progress", _costs(lambda: worker.progress(5, 10)), pairs, both, _FREE)
    yield _figure("step", _costs(lambda: worker.step(5)), values, one, _FREE)
    rich = _costs(lambda: worker.step(5, 10, loss=0.5))
    yield _figure("step-loss", rich, pairs, both, _RICH)
    unlocked = "multiprocessing.Value without a lock, assigned"
    yield _figure("bar", _costs(lambda: _assign(bar)), _costs(lambda: _assign(bare)), unlocked)
    name = "multiprocessing.Event, the same"
    yield _figure("is-set", _costs(flag.is_set), _costs(event.is_set), name)
    yield _figure("set", _costs(flag.set), _costs(event.set), name)
    yield _figure("look", _costs(page.progress))
    yield _figure("wake", _wakes(flag, _wait_flag), _wakes(event, _wait_event), name)
    attached.close()


_WHAT = {
    "progress": "worker.progress(5, 10)",
    "step": "worker.step(5)",
    "step-loss": "worker.step(5, 10, loss=0.5)",
    "bar": "progress_bar_iter.value = 5, as a rank",
    "is-set": "Flag.is_set()",
    "set": "Flag.set(), nobody waits",
    "look": "the agent's look at all slots",
    "wake": "from a flag's set() to the return of wait() in another process",
}


def _figure(
    name: str,
    ours: list[float],
    peer: list[float] | None = None,
    peer_name: str = "",
    goal: float = 0,
) -> Measurement:
    return Measurement(
        name=name,
        what=_WHAT[name],
        unit="s",
        ours=Sample.of(ours),
        peer=Sample.of(peer) if peer else None,
        peer_name=peer_name,
        goal=Goal("ours", goal) if goal else None,
    )


def _assign(target: object) -> None:
    target.value = 5  # type: ignore[attr-defined]  # ours and multiprocessing's have it


def _costs(call: Callable[[], object]) -> list[float]:
    """Seconds of one call in each run, less what calling a function that does nothing takes."""
    nothing = min(timeit.repeat(lambda: None, number=_CALLS, repeat=_RUNS))
    return [(took - nothing) / _CALLS for took in timeit.repeat(call, number=_CALLS, repeat=_RUNS)]


def _wakes(signal: Flag | Event, wait: Callable[[Flag | Event], None]) -> list[float]:
    """Seconds from raising ``signal`` to the return of a wait for it in a forked process."""
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
        delays.append((int.from_bytes(os.read(reader, 8), "big") - raised) / 1e9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    return delays


def _wait_flag(signal: Flag | Event) -> None:
    assert isinstance(signal, Flag)
    signal.wait(time.monotonic() + 10)


def _wait_event(signal: Flag | Event) -> None:
    assert isinstance(signal, Event)
    signal.wait(10)
