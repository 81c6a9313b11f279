"""``breakpoint``: pdb on the launching program's terminal, for a rank that this process plays."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from llutil import launcher, worker
from llutil.debugger import breakpoint as breakpoint_module
from llutil.events.events import ENVIRONMENT, SLOT_NUMBER, Events
from llutil.events.rank_slot import Doing
from llutil.system.terminal import TERMINAL
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork

ON = ["n"] if sys.version_info >= (3, 13) else []
"""Since Python 3.13, pdb stops first at the call that asks for it, and then at the next line."""
NAMES = (ENVIRONMENT, SLOT_NUMBER, TERMINAL, "LOCAL_RANK", "PYTHONBREAKPOINT")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins outside a launch, in a process that has debugged nothing."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker, "_state", worker._ProcessState())
    monkeypatch.setattr(breakpoint_module, "_processes", {})
    trace = sys.gettrace()
    yield
    sys.settrace(trace)
    if worker._state.attached is not None:
        worker._state.attached.close()


class Person:
    """Somebody at a terminal, who types ahead."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        tty.setraw(self.theirs)  # nothing is echoed
        self.path = os.ttyname(self.theirs)

    def type(self, *lines: str) -> None:
        os.write(self.ours, "".join(f"{line}\n" for line in lines).encode())

    def answer(self, *lines: str) -> threading.Thread:
        """Type each of ``lines`` at a prompt of its own, behind."""

        def answer() -> None:
            for line in lines:
                text = b""
                while b"(Pdb" not in text:
                    text += os.read(self.ours, 1 << 16)
                self.type(line)

        thread = threading.Thread(target=answer)
        thread.start()
        return thread

    def seen(self) -> list[str]:
        """What the debugger printed since the last look."""
        os.write(self.theirs, b"\0")  # the kernel hands on what was written a moment later
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self.ours, 1 << 16)
        return text[:-1].decode().splitlines()

    def leave(self) -> None:
        for fd in (self.ours, self.theirs):
            if fd >= 0:
                os.close(fd)
        self.ours = self.theirs = -1


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """After a test Ctrl-C does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    # An interrupt in what pdb runs lets Python end by SIGINT, unless something else is run (3.11).
    exec("")


@pytest.fixture
def person() -> Iterator[Person]:
    person = Person()
    yield person
    person.leave()


@pytest.fixture
def page(person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Events]:
    """The page of a node of two ranks; this process becomes the one with local rank 1."""
    with Events(folder=tmp_path) as events:
        environment = {
            ENVIRONMENT: events.path,
            SLOT_NUMBER: "1",
            TERMINAL: person.path,
            "RANK": "5",
            "LOCAL_WORLD_SIZE": "2",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield events


def function(number: int) -> int:
    launcher.breakpoint(header="look")
    number += 1
    return number


def test_a_rank_is_debugged_where_its_job_was_launched(person: Person, page: Events) -> None:
    person.type(*ON, "p number", "number = 10", "n", "p number", "c")
    assert function(3) == 11
    lines = person.seen()
    if ON:
        assert lines[3] == '-> launcher.breakpoint(header="look")'
        del lines[2:4]
        lines[2] = lines[2].removeprefix("(Pdb rank 5) ")
    assert lines[0].startswith("rank 5 on ")
    assert "c: go on; q: go on and stop no more; Ctrl-C: stop the job" in lines[0]
    assert lines[1] == "look"
    assert lines[2].startswith("> ")
    assert lines[2].endswith("function()")
    assert lines[3] == "-> number += 1"
    assert lines[4] == "(Pdb rank 5) 3"
    assert lines[5].startswith("(Pdb rank 5) (Pdb rank 5) > ")
    assert lines[7] == "(Pdb rank 5) 11"
    person.type("c")
    assert function(0) == 1
    assert "look" in person.seen(), "it stops again"


def test_the_node_knows_of_it_until_the_last_debugged_rank_goes_on(
    person: Person, page: Events
) -> None:
    slot, other = page.slot(1), page.slot(0)
    slot.doing = Doing.CHECKPOINT
    other.doing = Doing.DEBUGGED
    person.type("!from llutil import worker", "p worker.events().debugged", "c")
    function(0)
    assert "(Pdb rank 5) (Pdb rank 5) True" in person.seen()
    assert page.debugged, "the other rank is debugged"
    other.doing = Doing.STEPS
    person.type("c")
    function(0)
    assert (page.debugged, page.debugger_end.is_set(), slot.doing) == (False, True, 1)
    page.debugger_start.set()
    page.debugger_end.clear()
    page.reset_slots()
    assert not page.debugged, "of a rank that was killed at its prompt, in the next round"


@pytest.mark.parametrize("last", ["q", "EOF"])
def test_quit_and_the_end_of_input_go_on_and_no_breakpoint_stops_any_more(
    last: str, person: Person, page: Events
) -> None:
    person.type("break function", "n", last)
    assert function(3) == 4
    assert function(3) == 4
    assert (page.debugged, page.debugger_end.is_set()) == (False, True)


def in_threads(count: int) -> list[int]:
    """What ``function(3)`` returns in so many threads that all live at once."""
    found: list[int] = []
    ends = threading.Barrier(count)

    def run() -> None:
        found.append(function(3))
        ends.wait()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_nothing_stops_any_more_in_other_threads_either(person: Person, page: Events) -> None:
    person.type("q")
    assert function(3) == 4
    assert person.seen()
    person.type("c")
    assert in_threads(1) == [4]
    assert not person.seen()
    assert (page.debugged, page.debugger_end.is_set()) == (False, True)


def test_a_thread_that_ends_debugging_leaves_no_breakpoint_in_another_one(
    person: Person, page: Events
) -> None:
    person.type("break function", "c", "c")
    assert function(3) == 4
    person.type("q")
    assert in_threads(1) == [4]
    assert function(3) == 4
    assert not sys.gettrace()
    assert not page.debugged


def test_who_waits_for_the_terminal_when_another_thread_ends_debugging_goes_on(
    person: Person, page: Events
) -> None:
    waiting = threading.Thread(target=in_threads, args=(2,))
    waiting.start()
    person.type("q")
    waiting.join()
    assert len([line for line in person.seen() if "has the terminal" in line]) == 1
    assert (page.debugged, page.debugger_end.is_set()) == (False, True)


@in_a_fork
def test_threads_leave_no_debugger_behind_when_they_end(person: Person, page: Events) -> None:
    answering = person.answer(*9 * "c")
    had = []
    for _ in range(3):
        assert in_threads(3) == [4, 4, 4]
        had.append((len(open_descriptors()), atexit._ncallbacks()))
    answering.join()
    assert had == 3 * had[:1]


def test_a_terminal_that_is_closed_ends_debugging_and_not_the_rank(
    person: Person, page: Events, caplog: pytest.LogCaptureFixture
) -> None:
    person.type("c")
    assert function(3) == 4
    person.leave()
    assert [function(3), function(3)] == [4, 4]
    assert (page.debugged, page.debugger_end.is_set()) == (False, True)
    assert "debugging is over, since the terminal is gone" in caplog.text


def test_a_step_out_of_the_users_code_ends_debugging(person: Person, page: Events) -> None:
    # The frame above it has the name of the module that calls users' functions in a rank.
    names = {"__name__": "llutil.agent.worker_side.worker_main", "function": function}
    person.type(*ON, "n", "n", "n")
    exec("value = function(3)", names)
    assert names["value"] == 4
    assert not page.debugged
    assert [line for line in person.seen() if "--Return--" in line]


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("command", ["p interrupt()", "interrupt()", ""])
def test_an_interrupt_stops_the_rank_and_not_only_a_command(
    command: str, person: Person, page: Events
) -> None:
    heard = threading.Event()

    def interrupted(*_: object) -> None:
        if not heard.is_set():  # the next one may be on its way already
            heard.set()
            raise KeyboardInterrupt

    def interrupt_at_the_prompt() -> None:
        os.read(person.ours, 1 << 16)
        # A signal that comes right before a read does not end it: Python hears of it afterwards.
        while not heard.wait(0.1):
            signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, interrupted)
    main = threading.get_ident()
    thread = threading.Thread(target=interrupt_at_the_prompt)
    if command:
        person.type(command)
    else:
        thread.start()
    with pytest.raises(KeyboardInterrupt):
        function(3)
    if not command:
        thread.join()
    assert (page.debugged, page.debugger_end.is_set()) == (False, True)


def test_a_rank_cannot_be_started_again_by_the_debugger(person: Person, page: Events) -> None:
    person.type("restart", "c")
    assert function(3) == 4
    assert "(Pdb rank 5) *** a rank cannot be restarted from here" in person.seen()


@pytest.mark.parametrize("hook", ["sys.breakpointhook", "PYTHONBREAKPOINT"])
def test_pythons_own_breakpoint_can_do_the_same(
    hook: str, person: Person, page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hook == "PYTHONBREAKPOINT":
        monkeypatch.setenv(hook, "llutil.launcher.breakpoint")
        monkeypatch.setattr(sys, "breakpointhook", sys.__breakpointhook__)
    else:
        monkeypatch.setattr(sys, "breakpointhook", launcher.breakpoint)
    person.type("p here", "c")
    here = 17
    breakpoint()
    assert "(Pdb rank 5) 17" in person.seen()
    assert here == 17


@pytest.mark.parametrize(
    ("terminal", "says"),
    [
        ("", "the launching program has none, or runs in the background"),
        ("/no/such/terminal", "No such file or directory"),
        (__file__, "is no terminal"),
    ],
)
def test_without_a_terminal_a_rank_says_so_once_and_goes_on(
    terminal: str,
    says: str,
    page: Events,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(TERMINAL, terminal)
    assert [function(3), function(3)] == [4, 4]
    (record,) = caplog.records
    assert "breakpoint() goes on: no terminal for this rank: " in record.getMessage()
    assert says in record.getMessage()
    assert not page.debugged


def test_outside_a_launch_it_is_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "breakpointhook", launcher.breakpoint)
    monkeypatch.setattr(sys, "stdin", io.StringIO("p number\nc\n"))
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    assert function(3) == 4
    lines = shown.getvalue().splitlines()
    assert lines[0] == "look"
    assert "function()" in lines[1]
    assert lines[3].startswith("(Pdb) 3")
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    assert function(4) == 5
    assert shown.getvalue().splitlines() == lines, "0 switches it off"
    called: list[str] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: called.append("another debugger"))
    monkeypatch.delenv("PYTHONBREAKPOINT")
    assert function(4) == 5
    assert called == ["another debugger"]


@pytest.fixture
def busy_collector() -> Iterator[None]:
    """The garbage collector runs all the time, and calls a function each time, as hypothesis and
    others have it do.
    """

    def called(_phase: str, _info: dict[str, int]) -> None:
        pass

    threshold = gc.get_threshold()
    gc.callbacks.append(called)
    gc.set_threshold(1)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(called)


@pytest.mark.usefixtures("busy_collector")
def test_it_stops_in_no_function_that_the_garbage_collector_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "breakpointhook", launcher.breakpoint)
    for _ in range(20):
        monkeypatch.setattr(sys, "stdin", io.StringIO("p number\nc\n"))
        monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
        assert function(3) == 4
        assert "function()" in shown.getvalue().splitlines()[1]


@pytest.mark.usefixtures("busy_collector")
def test_nor_does_a_rank(person: Person, page: Events) -> None:
    person.type("p number", "c")
    assert function(3) == 4
    assert "--Call--" not in person.seen()
    assert not page.debugged
