"""What a rank server does at its limits. It runs in the test's own process."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.start_methods import rank_server_loop
from llutil.agent.start_methods.rank_server_children import Children
from llutil.agent.start_methods.rank_server_loop import _answer
from llutil.agent.start_methods.spawn_and_fork import Spawn
from tests.support.descriptors import few_descriptors, open_descriptors
from tests.support.forks import fork, in_a_fork
from tests.support.launches import wait_until

HEADER = {"stdin": False, "stdout": False, "stderr": False, "shared_fd": False}


@pytest.fixture
def child() -> Iterator[int]:
    """A process that has ended, and was not reaped."""
    pid = fork()
    if pid == 0:
        os._exit(0)
    yield pid
    os.waitpid(pid, 0)


def _ask(room: int, what: dict[str, Any] | None = None) -> tuple[bool, dict[str, Any], int]:
    """What a server with ``room`` free descriptors answers, and how many descriptors it keeps."""
    agents, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agents, servers, ExitStack() as stack:
        body = os.memfd_create("body")
        os.write(body, json.dumps(what or {"env": {}, "interpreter": []}).encode())
        read, write = os.pipe()
        cwd = os.open(".", os.O_PATH | os.O_DIRECTORY)
        for fd in (body, read, write, cwd):
            stack.callback(os.close, fd)
        socket.send_fds(agents, [json.dumps(HEADER).encode()], [body, write, cwd, body, body])
        before = open_descriptors()
        with few_descriptors(room):
            went_on = _answer(servers, set(), Children(select.poll()), None, lambda: None)
        kept = open_descriptors() - before
        for fd in kept:
            os.close(fd)
        answer, pidfds, _, _ = socket.recv_fds(agents, 4096, 1)
        for fd in pidfds:
            os.close(fd)
        return went_on, json.loads(answer), len(kept)


@pytest.mark.parametrize("room", [0, 1, 4])
@in_a_fork
def test_a_server_at_its_limit_of_descriptors_says_so_and_serves_on(room: int) -> None:
    went_on, answer, kept = _ask(room)
    assert (went_on, kept) == (True, 0)
    assert "ulimit -n" in answer["error"]


@in_a_fork
def test_descriptors_for_a_request_are_enough_for_its_worker(
    child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_server_loop, "_fork", lambda *_: child)
    went_on, answer, kept = _ask(5)
    assert (went_on, answer["pid"], kept) == (True, child, 2)


def test_an_agent_that_dies_before_it_reads_an_answer_ends_the_server_as_any_other() -> None:
    agents, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with servers:
        servers.send(b"an answer")
        agents.close()
        assert not _answer(servers, set(), Children(select.poll()), None, lambda: None)


@in_a_fork
def test_an_environment_that_no_process_can_have_is_an_answer_and_not_the_end() -> None:
    body = {"env": {"NAME": "a\0b"}, "interpreter": [sys.executable, "-c", ""]}
    went_on, answer, kept = _ask(9, body)
    assert (went_on, kept) == (True, 0)
    assert "null byte" in answer["error"]


def test_the_server_of_fresh_interpreters_decodes_text_as_its_agent_does() -> None:
    """Else values of the environment would change on their way to a rank."""
    with closing(Spawn({})) as spawn:
        (pid,) = spawn.processes
        command = Path(f"/proc/{pid}/cmdline")
        assert wait_until(command.read_bytes)  # it is empty in the midst of execve(2)
        words = command.read_bytes().split(b"\0")
    assert f"utf8={sys.flags.utf8_mode}".encode() in words
