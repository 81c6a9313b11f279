"""The link to the task: all is heard, all is delivered or kept, and a slow task is not run over."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from llutil.agent_process.orphan_log import OrphanLog
from llutil.agent_process.task_observer import TaskObserver
from llutil.agent_process.task_socket import TaskSocket
from llutil.entrypoint import Script
from llutil.errors import ConfigError
from llutil.failure import FailureClass, JobFailure
from llutil.launcher.config import LaunchConfig
from llutil.task_link import messages as wire
from llutil.task_link.decoder import Decoder
from tests.unit.agent_process.stand_ins import HeldByThisThread, streams

FAR = 20.0  # seconds; a test that waits so long has failed
FAILED = wire.JobFailed(
    "StoppedError", "the end", False, JobFailure(failure_class=FailureClass.PREEMPTION)
)


def far() -> float:
    return time.monotonic() + FAR


def soon() -> float:
    return time.monotonic() + 0.05


@dataclass
class Pair:
    """A link, and the task's end of its socket."""

    link: TaskSocket
    task: socket.socket
    orphan_log: Path
    stops: list[str]
    stopped: threading.Event

    def spec(self) -> wire.Spec:
        return wire.Spec(
            config=LaunchConfig(1, 1, 1),
            entrypoint=Script("train.py"),
            result_limit=1000,
            orphan_log=str(self.orphan_log),
        )

    def tell(self, *messages: wire.Message) -> None:
        for message in messages:
            self.task.sendall(wire.encode(message))

    def hear(self, count: int) -> list[wire.Message]:
        decoder, heard = Decoder(), list[wire.Message]()
        while len(heard) < count and (data := self.task.recv(1 << 16)):
            heard += decoder.feed(data)
        return heard

    def hear_until(self, last: wire.Message) -> list[wire.Message]:
        decoder, heard = Decoder(), list[wire.Message]()
        while heard[-1:] != [last] and (data := self.task.recv(1 << 16)):
            heard += decoder.feed(data)
        return heard

    def kept(self) -> list[str]:
        return self.orphan_log.read_text().splitlines()


@contextmanager
def pair(folder: Path, *, start: bool = True) -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(FAR)
    with theirs, streams() as readers:
        stops: list[str] = []
        stopped = threading.Event()

        def on_stop(reason: str) -> None:
            stops.append(reason)
            stopped.set()

        link = TaskSocket(
            ours, OrphanLog(readers), on_stop, lambda *asked: stops.append(str(asked))
        )
        if start:
            link.start()
        try:
            yield Pair(link, theirs, folder / "after.log", stops, stopped)
        finally:
            link.close(soon())
            assert link._thread_ended.wait(FAR)


def wait_until(condition: Callable[[], bool]) -> bool:
    tick = threading.Event()
    deadline = far()
    while not condition():
        if time.monotonic() > deadline:
            return False
        tick.wait(0.002)
    return True


def test_the_spec_arrives_whole_in_whatever_pieces_it_comes(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        for byte in wire.encode(it.spec()):
            it.task.send(bytes([byte]))
        assert it.link.spec(far()) == it.spec()


def test_a_spec_of_many_megabytes_arrives(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        spec = wire.Spec(
            config=LaunchConfig(1, 1, 1, run_id="x" * 20_000_000),
            entrypoint=Script("train.py"),
            result_limit=1,
            orphan_log=str(it.orphan_log),
        )
        it.tell(spec)
        assert it.link.spec(far()) == spec


def test_no_spec_is_a_bad_configuration_once_its_time_is_over(tmp_path: Path) -> None:
    with pair(tmp_path) as it, pytest.raises(ConfigError, match="no spec came"):
        it.link.spec(soon())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"GET / HTTP/1.1\r\n", "not a message on the agent's socket"),
        (b"\xff\xfe\n", "not a message"),
        (b"{}\n", "missing required field"),
        (b"[]\n", "not a message"),
        (
            b'{"type":"spec","version":99}\n',
            f"version 99, and this agent reads version {wire.VERSION}: install the same",
        ),
        (b'{"type":"spec","version":%d}\n' % wire.VERSION, "not a message"),
        (wire.encode(wire.Hello(1, "python")), "a Hello came from the task"),
    ],
    ids=["http", "no text", "no type", "no object", "version", "fields", "direction"],
)
def test_what_is_no_spec_is_a_bad_configuration_at_once_and_no_stop(
    tmp_path: Path, line: bytes, text: str
) -> None:
    """A stop would be told as one, and say that somebody stopped the job, who did not."""
    with pair(tmp_path) as it:
        it.task.sendall(line)
        with pytest.raises(ConfigError, match=text):
            it.link.spec(far())
        assert it.stops == []


def test_nonsense_after_the_spec_stops_the_job(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec())
        it.link.spec(far())
        it.task.sendall(b"what?\n")
        assert it.stopped.wait(FAR)
        assert it.stops == ["not a message on the agent's socket: b'what?'"]


def test_each_stop_is_told_with_its_reason(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec(), wire.Stop("one"), wire.Stop("two"))
        assert wait_until(lambda: it.stops == ["one", "two"])


def test_flags_that_the_task_wants_come_in_between(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec(), wire.Steer(("pause",), "lunch"), wire.Stop("enough"))
        assert wait_until(lambda: it.stops == ["(('pause',), 'lunch')", "enough"])


def test_messages_arrive_in_order_from_all_threads_and_before_the_end(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        numbers = range(200)

        def speak(rank: int) -> None:
            for number in numbers:
                it.link.send(wire.OutputLines(rank, "stdout", str(number)))

        threads = [threading.Thread(target=speak, args=(rank,)) for rank in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        closing = threading.Thread(target=it.link.close, args=(far(),))
        closing.start()
        heard = it.hear(4 * len(numbers))
        closing.join()
        for rank in range(4):
            mine = [m.text for m in heard if isinstance(m, wire.OutputLines) and m.rank == rank]
            assert mine == [str(number) for number in numbers]
        assert it.task.recv(1) == b"", "the socket was closed after the last word"


def test_a_slow_task_is_not_run_over_and_resuming_waits_for_it(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        resumed = threading.Event()
        sent = 0
        while not it.link.congested():
            it.link.send(wire.OutputLines(0, "stdout", "x" * 10_000))
            sent += 1
        assert sent * 10_000 < 32 << 20
        it.link.when_not_congested(resumed.set)
        assert not resumed.wait(0.1)
        assert len(it.hear(sent)) == sent
        assert resumed.wait(FAR)
        assert not it.link.congested()


# The kernel takes none of what comes behind so much output, also if the link begins late to send.
@pytest.mark.parametrize("output", [1 << 20, 9 << 20], ids=["little output", "much output"])
def test_what_newer_messages_replace_fills_no_queue_and_goes_on_once_it_is_read(
    tmp_path: Path, output: int
) -> None:
    def ranks(step: int) -> dict[int, tuple[int, int]]:
        return dict.fromkeys(range(8), (step, 0))

    with pair(tmp_path) as it:
        observer = TaskObserver(it.link, cast("Any", None))
        it.link.send(wire.OutputLines(0, "stdout", "x" * output))
        for step in range(10_000):
            observer.progress(ranks(step), {})
        observer.saved(1)
        assert it.link._queue._queued < output + 400_000
        heard = it.hear_until(wire.Saved(1))
        assert len(heard) > 1000, "a task that is slow for some minutes misses nothing"
        assert heard[1:-1] == [wire.Progress(ranks(step)) for step in range(len(heard) - 2)]
        observer.progress(ranks(10_000), {})
        assert it.hear(1) == [wire.Progress(ranks(10_000))]


def test_resuming_is_called_at_once_where_nothing_waits(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        resumed = threading.Event()
        it.link.when_not_congested(resumed.set)
        assert resumed.wait(FAR)


@pytest.mark.parametrize("size", [10, 3_000, 100_000])
@pytest.mark.parametrize("read", [0, 5])
def test_words_that_a_dead_task_has_not_read_are_kept(tmp_path: Path, size: int, read: int) -> None:
    """Also those that the kernel had taken already, which dies with the task."""
    words = [f"{number} {'x' * size}" for number in range(300)]
    with pair(tmp_path) as it:
        it.tell(it.spec())
        it.link.spec(far())
        for text in words:
            it.link.send(wire.OutputLines(7, "stdout", text))
        seen = [m.text for m in it.hear(read) if isinstance(m, wire.OutputLines)] if read else []
        it.task.close()
        assert it.stopped.wait(FAR)
        it.link.send(FAILED)
        assert wait_until(lambda: it.kept()[-1:] == ["the job ended: the end"])
        kept = [line.removeprefix("[rank 7] ") for line in it.kept()[:-1]]
    assert it.stops == ["its Airflow task is gone"]
    assert kept == words[len(words) - len(kept) :], "in order, and each once"
    assert len(seen) + len(kept) >= len(words), "none is in neither"


def test_a_task_that_read_everything_finds_little_of_it_again(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec())
        it.link.spec(far())
        for number in range(5_000):
            it.link.send(wire.OutputLines(0, "stdout", f"line {number}"))
        assert len(it.hear(5_000)) == 5_000
        it.task.close()
        assert it.stopped.wait(FAR)
        assert wait_until(it.orphan_log.exists)
        it.link.close(far())
        assert len(it.kept()) < 300


def test_a_task_that_goes_before_its_spec_stops_the_job_and_keeps_nothing(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.task.sendall(wire.encode(it.spec())[:20])
        it.task.close()
        assert it.stopped.wait(FAR)
        it.link.send(FAILED)
        it.link.close(far())
    assert not it.orphan_log.exists()


def test_a_task_that_shuts_only_its_writing_is_gone_too(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec())
        it.task.shutdown(socket.SHUT_WR)
        assert it.stopped.wait(FAR)
        assert it.stops == ["its Airflow task is gone"]


def test_closing_delivers_the_last_words_to_a_task_that_reads_late(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        for _ in range(100):
            it.link.send(wire.OutputLines(0, "stdout", "x" * 10_000))
        it.link.send(FAILED)
        closing = threading.Thread(target=it.link.close, args=(far(),))
        closing.start()
        assert it.hear(101)[-1] == FAILED
        closing.join(FAR)
        assert not closing.is_alive()


def test_closing_gives_up_on_a_task_that_never_reads(tmp_path: Path) -> None:
    with pair(tmp_path) as it:
        for _ in range(100):
            it.link.send(wire.OutputLines(0, "stdout", "x" * 10_000))
        it.link.close(soon())
        assert it.link._thread_ended.wait(FAR)


def test_a_task_that_goes_while_the_link_closes_stops_nothing_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with pair(tmp_path) as it:
        it.tell(it.spec())
        it.link.spec(far())
        for number in range(100):
            it.link.send(wire.OutputLines(0, "stdout", f"{number} {'x' * 10_000}"))
        closing = threading.Thread(target=it.link.close, args=(far(),))
        closing.start()
        assert wait_until(lambda: it.link._close_deadline is not None)
        it.task.close()
        closing.join(FAR)
        assert not closing.is_alive()
        assert it.stops == []
        assert it.kept()[0].startswith("[rank 0] 0 ")
        assert it.kept()[-1].startswith("[rank 0] 99 ")


# Before the thread.


def test_the_first_spec_is_read_without_a_thread_and_what_is_queued_is_sent(tmp_path: Path) -> None:
    with pair(tmp_path, start=False) as it:
        hello = wire.Hello(1, "python")
        it.link.send(hello)
        it.tell(it.spec())
        assert it.link.first_spec(far()) == it.spec()
        assert it.hear(1) == [hello]
        assert not it.link._started
        it.link.start()
        assert it.link.spec(far()) == it.spec()
        assert it.stops == []


def test_a_stop_behind_the_spec_leaves_no_time_for_what_comes_before_the_thread(
    tmp_path: Path,
) -> None:
    with pair(tmp_path, start=False) as it:
        it.tell(it.spec(), wire.Stop("enough"))
        assert it.link.first_spec(far()) is None
        assert it.stops == []
        it.link.start()
        assert it.stopped.wait(FAR)
        assert it.stops == ["enough"]
        assert it.link.spec(far()) == it.spec()


@pytest.mark.parametrize("data", [b"hello\n", wire.encode(wire.Progress())])
def test_nonsense_in_the_place_of_the_first_spec_is_told_later(data: bytes, tmp_path: Path) -> None:
    with pair(tmp_path, start=False) as it:
        it.task.sendall(data)
        assert it.link.first_spec(far()) is None
        it.link.start()
        with pytest.raises(ConfigError):
            it.link.spec(far())


def test_a_task_that_has_gone_before_the_first_spec_is_noticed_by_the_thread(
    tmp_path: Path,
) -> None:
    with pair(tmp_path, start=False) as it:
        it.task.close()
        assert it.link.first_spec(far()) is None
        it.link.start()
        assert it.stopped.wait(FAR)
        assert it.stops == ["its Airflow task is gone"]


def test_no_first_spec_is_waited_for_beyond_the_deadline(tmp_path: Path) -> None:
    with pair(tmp_path, start=False) as it:
        assert it.link.first_spec(soon()) is None


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_word_that_comes_while_the_link_is_listening_starts_the_thread(
    moment: str, tmp_path: Path
) -> None:
    with pair(tmp_path, start=False) as it:
        it.tell(it.spec())
        assert it.link.first_spec(far())
        if moment == "before":
            it.tell(wire.Stop("enough"))
        with it.link.started_by_input():
            if moment == "meanwhile":
                it.tell(wire.Stop("enough"))
            assert it.stopped.wait(FAR)
        assert it.stops == ["enough"]


def test_to_start_the_thread_takes_no_lock_that_interrupted_code_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair(tmp_path, start=False) as it, HeldByThisThread().patched(monkeypatch):
        it.link.start()
        it.tell(it.spec())
        assert it.link.spec(far()) == it.spec()


def test_a_task_that_reads_does_not_start_the_thread_of_a_link_that_is_listening(
    tmp_path: Path,
) -> None:
    with pair(tmp_path, start=False) as it:
        hello = wire.Hello(1, "python")
        it.link.send(hello)
        it.tell(it.spec())
        assert it.link.first_spec(far())
        with it.link.started_by_input():
            assert it.hear(1) == [hello]
        assert not it.link._started
