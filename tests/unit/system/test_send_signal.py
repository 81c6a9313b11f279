"""A signal reaches the one process that is meant, or nobody."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from llutil.system.process_table import stat_of
from llutil.system.send_signal import Sent, send_signal, send_signal_by_pidfd


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Waits for its input, and leads a process group."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as child:
        yield child
        child.kill()


def start_of(pid: int) -> int:
    stat = stat_of(pid)
    assert stat is not None
    return stat.start


def test_the_process_that_is_meant_gets_the_signal(child: subprocess.Popen[bytes]) -> None:
    assert send_signal(child.pid, start_of(child.pid), signal.SIGTERM) is Sent.DONE
    assert child.wait() == -signal.SIGTERM


def test_a_number_that_has_become_anothers_is_not_signalled(
    child: subprocess.Popen[bytes],
) -> None:
    """The start time in the record is another than the process's."""
    for start in (start_of(child.pid) - 1, start_of(child.pid) + 1, 0):
        assert send_signal(child.pid, start, signal.SIGKILL) is Sent.GONE
        assert send_signal(child.pid, start, signal.SIGKILL, group=True) is Sent.GONE
    assert child.poll() is None


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("pid", [1, 0, -1, -2])
def test_process_1_and_what_means_everybody_is_never_signalled(
    pid: int, group: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *args: sent.append(args))
    monkeypatch.setattr(os, "killpg", lambda *args: sent.append(args))
    start = start_of(1)  # as a record has it whose task had gone: its parent is process 1
    assert send_signal(pid, start, signal.SIGKILL, group=group) is Sent.REFUSED
    assert sent == []


@pytest.mark.parametrize("group", [1, -1])
def test_the_group_of_process_1_is_never_signalled(
    child: subprocess.Popen[bytes], group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *args: sent.append(args))
    monkeypatch.setattr(os, "killpg", lambda *args: sent.append(args))
    pidfd = os.pidfd_open(child.pid)
    assert send_signal_by_pidfd(pidfd, signal.SIGKILL, group) is Sent.REFUSED
    os.close(pidfd)
    assert sent == []


@pytest.mark.parametrize("flag", ["of this kernel", "unknown to this kernel"])
def test_a_whole_group_gets_the_signal_though_its_leader_has_ended(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux before 6.9 does not know the flag that sends to a group by a descriptor."""
    if flag == "unknown to this kernel":
        send = signal.pidfd_send_signal

        def send_without_flags(pidfd: int, number: int, info: None = None, flags: int = 0) -> None:
            if flags:
                raise OSError(22, "Invalid argument")
            send(pidfd, number)

        monkeypatch.setattr(signal, "pidfd_send_signal", send_without_flags)
    script = "cat >&2 & echo; exit"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
        assert send_signal(leader.pid, start_of(leader.pid), signal.SIGKILL, group=True) is (
            Sent.DONE
        )
        assert leader.stdout.read() == b"", "the last one that held it has ended"


def test_a_process_that_has_ended_is_gone(child: subprocess.Popen[bytes]) -> None:
    start = start_of(child.pid)
    child.kill()
    child.wait()
    assert send_signal(child.pid, start, signal.SIGTERM) is Sent.GONE


def test_the_number_of_a_thread_is_no_process() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert send_signal(thread.native_id, 0, signal.SIGTERM) is Sent.GONE
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_process_that_cannot_be_looked_at_is_not_taken_for_gone(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    start = start_of(child.pid)
    for name in ("pidfd_open", "open", "read"):
        with monkeypatch.context() as patches:
            patches.setattr(os, name, fail)
            with pytest.raises(OSError, match=os.strerror(number)):
                send_signal(child.pid, start, signal.SIGTERM)


def test_a_sandbox_that_forbids_descriptors_of_processes_refuses_the_signal(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> NoReturn:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    start = start_of(child.pid)
    monkeypatch.setattr(os, "pidfd_open", fail)
    assert send_signal(child.pid, start, signal.SIGTERM) is Sent.REFUSED
