"""The event page between processes: waking, dying in the middle of a write, forks, stale files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llutil.events.events import ENVIRONMENT, Events, remove_stale_pages

pytestmark = pytest.mark.fault

SOON = 30.0
ROOT = Path(__file__).parents[3]


def start(source: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A fresh interpreter that runs ``source``."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=SOON)
    assert process.returncode == 0, output
    return output


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def test_a_script_that_waits_wakes_when_the_agent_raises_the_flag() -> None:
    waiting = """
        import time
        from llutil import worker
        events = worker.events()
        worker.progress(0)
        assert events.resume.wait(time.monotonic() + 30)
        print(time.monotonic_ns())
    """
    with Events() as events:
        ranks = [
            start(waiting, **{ENVIRONMENT: events.path, "LOCAL_RANK": str(rank)})
            for rank in range(3)
        ]
        until(lambda: len(events.progress()) == len(ranks))
        raised = time.monotonic_ns()
        events.resume.set()
        delays = [int(finish(rank)) - raised for rank in ranks]
    assert max(delays) < SOON * 1e9
    print(f"woken after {[delay // 1000 for delay in delays]} us")


def test_waiting_sleeps_in_the_kernel_and_does_not_look_again_and_again() -> None:
    waiting = """
        import resource, time
        from llutil import worker
        pause = worker.events().pause
        pause.wait(0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        assert not pause.wait(time.monotonic() + 0.5)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)
    """
    with Events() as events:
        sleeps = int(finish(start(waiting, **{ENVIRONMENT: events.path, "LOCAL_RANK": "0"})))
    assert sleeps <= 5  # polling every 20 ms would take 25


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_events_given_to_a_process_of_multiprocessing_are_the_same_page(
    method: str, temporary: Path
) -> None:
    program = temporary / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, sys, time
            from llutil.events.events import ENVIRONMENT, Events

            def work(events, rank):
                os.environ |= {ENVIRONMENT: events.path, "LOCAL_RANK": str(rank)}
                events.progress_bar_total.value = 10
                events.progress_bar_iter.value = rank + 1
                assert events.resume.wait(time.monotonic() + 30)

            if __name__ == "__main__":
                context = multiprocessing.get_context(sys.argv[1])
                with Events() as events:
                    ranks = [context.Process(target=work, args=(events, r)) for r in range(2)]
                    for rank in ranks:
                        rank.start()
                    deadline = time.monotonic() + 30
                    while events.progress() != {0: (1, 10), 1: (2, 10)}:
                        assert time.monotonic() < deadline, events.progress()
                        time.sleep(0.001)
                    events.resume.set()
                    for rank in ranks:
                        rank.join()
                    print([rank.exitcode for rank in ranks], events.progress_bar_iter.value)
                    assert os.path.exists(events.path)
                assert not os.path.exists(events.path)
            """
        )
    )
    output = subprocess.run(
        [sys.executable, str(program), method],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert output.stdout.strip() == "[0, 0] 1", output.stderr


def test_a_worker_killed_while_it_writes_leaves_whole_words_and_no_lock() -> None:
    """20 kills at random moments of a loop that does nothing but write."""
    low, high = 0x1111_1111_1111_1111, 0xEEEE_EEEE_EEEE_EEEE
    writing = """
        import sys
        from llutil import worker
        low, high = int(sys.argv[1]), int(sys.argv[2])
        flag = worker.events().trigger_save_checkpoint
        while True:
            worker.progress(low, high)
            flag.set()
            worker.progress(high, low)
            flag.clear()
    """
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    with Events() as events:
        for _ in range(20):
            events.reset_slots()
            events.trigger_save_checkpoint.clear()
            writer = start(
                writing, str(low), str(high), **{ENVIRONMENT: events.path, "LOCAL_RANK": "0"}
            )
            until(lambda: bool(events.progress()))
            assert events.trigger_save_checkpoint.wait(time.monotonic() + SOON)
            time.sleep(moments.uniform(0, 0.005))
            writer.kill()
            writer.communicate()
            step, total = events.progress()[0]
            assert {step, total} <= {low, high}
            assert events.slot(0).heartbeat <= time.monotonic_ns()

            events.trigger_save_checkpoint.set()  # nobody holds anything: all goes on
            assert events.trigger_save_checkpoint.wait(0)
            events.slot(0).report(1, 2)
            assert events.progress() == {0: (1, 2)}


def test_a_worker_killed_while_it_waits_hinders_nobody() -> None:
    waiting = """
        import time
        from llutil import worker
        worker.progress(1)
        worker.events().resume.wait(time.monotonic() + 600)
    """
    with Events() as events:
        workers = [
            start(waiting, **{ENVIRONMENT: events.path, "LOCAL_RANK": str(rank)}) for rank in (0, 1)
        ]
        until(lambda: len(events.progress()) == 2)
        workers[0].kill()
        workers[0].communicate()
        events.resume.set()
        finish(workers[1])


def test_all_slots_are_seen_across_processes() -> None:
    writing = """
        import os
        from llutil.events.events import Events
        with Events.attach(os.environ["LLUTIL_EVENTS"]) as events:
            for rank in range(256):
                events.slot(rank).report(rank, 2 * rank + 1)
    """
    with Events() as events:
        finish(start(writing, **{ENVIRONMENT: events.path}))
        assert events.progress() == {rank: (rank, 2 * rank + 1) for rank in range(256)}


def test_a_forked_child_neither_removes_the_page_nor_keeps_its_parents_rank() -> None:
    program = """
        import gc, os, sys
        from pathlib import Path
        from llutil import worker
        from llutil.events.events import Events

        def child(act):
            pid = os.fork()
            if pid == 0:
                act()
                sys.exit(0)  # runs exit handlers, unlike os._exit
            assert os.waitpid(pid, 0)[1] == 0

        events = Events()
        path = events.path
        os.environ["LLUTIL_EVENTS"] = path
        os.environ["LOCAL_RANK"] = "0"
        worker.progress(1)
        events.progress_bar_total.value = 9

        def another_rank():
            os.environ["LOCAL_RANK"] = "1"
            worker.progress(2)
            events.progress_bar_total.value = 5

        def drop():
            global events
            del events
            gc.collect()

        child(another_rank)
        child(lambda: events.close())
        child(drop)
        child(lambda: None)
        assert Path(path).exists()
        assert events.progress() == {0: (1, 9), 1: (2, 5)}, events.progress()

        inner = Events()  # a launch inside a worker

        def worker_of_it():
            os.environ["LLUTIL_EVENTS"] = inner.path
            worker.progress(3)
            worker.events().pause.set()

        child(worker_of_it)
        assert inner.progress() == {0: (3, 0)}
        assert inner.pause.is_set() and not events.pause.is_set()
    """
    finish(start(program))


def test_events_outside_a_worker_are_shared_with_forked_children() -> None:
    program = """
        import os, time
        from llutil import worker
        events = worker.events()
        pid = os.fork()
        if pid == 0:
            worker.events().finished_save_checkpoint.set()
            os._exit(0)
        assert events.finished_save_checkpoint.wait(time.monotonic() + 30)
        os.waitpid(pid, 0)
    """
    finish(start(program))


@pytest.mark.parametrize(
    "ending", ["pass", "sys.exit(0)", "events.close()", "del events", "forget(events)"]
)
def test_a_creator_that_ends_in_order_leaves_no_file(ending: str) -> None:
    program = f"""
        import sys
        from llutil.events.events import Events
        def forget(events):
            cycle = [events]; cycle.append(cycle)
        events = Events()
        print(events.path)
        {ending}
    """
    path = finish(start(program)).strip()
    assert path
    assert not Path(path).exists()


def test_a_killed_creators_page_is_removed_by_the_next_agent_and_living_ones_are_kept() -> None:
    program = """
        import time
        from llutil.events.events import Events
        events = Events()
        print(events.path, flush=True)
        time.sleep(600)
    """
    killed, living = start(program), start(program)
    try:
        assert killed.stdout is not None
        assert living.stdout is not None
        stale, kept = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        # Before anybody has reaped it, too: then the pid still has an entry in /proc.
        until(lambda: Path(f"/proc/{killed.pid}/stat").read_text().split(")")[1].split()[0] == "Z")
        remove_stale_pages()  # or another process of this host was quicker
        assert not Path(stale).exists()
        assert Path(kept).exists()
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()
        remove_stale_pages()
    assert not Path(kept).exists()


def test_a_folder_that_is_full_is_an_error_and_not_a_later_crash(temporary: Path) -> None:
    """The page's room is set aside when it is made; a limit on file size stands in for a full
    disk.
    """
    program = """
        import resource, signal, sys
        from llutil.errors import InfrastructureError
        from llutil.events.events import Events
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            Events(folder=sys.argv[1])
        except InfrastructureError as error:
            print(error)
    """
    output = finish(start(program, str(temporary)))
    assert output.startswith(f"cannot make an event page in {temporary} (File too large)")
    assert list(temporary.iterdir()) == []
