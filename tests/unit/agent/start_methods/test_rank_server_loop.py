"""What a rank server does at its limits. It runs in the test's own process."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest

from llutil.agent.start_methods import rank_server_loop
from llutil.agent.start_methods.rank_server_children import Children
from llutil.agent.start_methods.rank_server_loop import _answer, serve
from llutil.agent.start_methods.ready_workers import READY_HEADER
from llutil.agent.start_methods.worker_start import WorkerStart
from tests.support.descriptors import few_descriptors, open_descriptors
from tests.support.forks import fork

DEADLINE = 30_000  # milliseconds
HEADER = {"stdin": False, "stdout": False, "stderr": False, "shared_fd": False}


@pytest.fixture
def child() -> Iterator[int]:
    """A process that has ended, and was not reaped."""
    pid = fork()
    if pid == 0:
        os._exit(0)
    yield pid
    os.waitpid(pid, 0)


def _ask(room: int) -> tuple[bool, dict[str, Any], int]:
    """What a server with ``room`` free descriptors answers, and how many descriptors it keeps."""
    agents, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agents, servers, ExitStack() as stack:
        body = os.memfd_create("body")
        os.write(body, json.dumps({"env": {}, "interpreter": []}).encode())
        read, write = os.pipe()
        for fd in (body, read, write):
            stack.callback(os.close, fd)
        socket.send_fds(agents, [json.dumps(HEADER).encode()], [body, write, read, body, body])
        before = open_descriptors()
        with few_descriptors(room):
            went_on = _answer(servers, set(), Children(select.poll()), None, lambda: None, [])
        kept = open_descriptors() - before
        for fd in kept:
            os.close(fd)
        answer, pidfds, _, _ = socket.recv_fds(agents, 4096, 1)
        for fd in pidfds:
            os.close(fd)
        return went_on, json.loads(answer), len(kept)


@pytest.mark.parametrize("room", [0, 1, 4])
def test_a_server_at_its_limit_of_descriptors_says_so_and_serves_on(room: int) -> None:
    went_on, answer, kept = _ask(room)
    assert (went_on, kept) == (True, 0)
    assert "ulimit -n" in answer["error"]


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
        assert not _answer(servers, set(), Children(select.poll()), None, lambda: None, [])


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The agent's end of the socket of a server. Each of its workers writes what is behind its
    descriptors as its outcome, and ends.
    """
    monkeypatch.setattr(rank_server_loop, "_QUIET", 0.3)
    agents, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = os.getpid()
    pid = fork()
    if pid == 0:
        agents.close()
        serve(servers.detach(), agent, _tell_descriptors)
    servers.close()
    with agents:
        yield agents
    os.waitpid(pid, 0)


def _tell_descriptors(start: WorkerStart) -> NoReturn:
    for fd in start.server_fds:
        os.close(fd)
    os.write(start.outcome_fd, json.dumps([_behind(fd) for fd in open_descriptors()]).encode())
    os._exit(0)


def _behind(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - it is no path


def test_a_worker_comes_before_a_fork_that_was_asked_for_ahead_and_has_nothing_of_it(
    agents: socket.socket,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    body = os.memfd_create("body")
    os.write(body, json.dumps({"env": {}, "interpreter": []}).encode())
    folder = os.open("/", os.O_PATH)
    ahead_exit, worker_exit, outcome = os.pipe(), os.pipe(), os.pipe()
    with ExitStack() as stack:
        for fd in (body, folder, *ahead_exit, *worker_exit, *outcome):
            stack.callback(os.close, fd)
        stack.enter_context(ours)
        with theirs:
            of_the_fork = {_behind(theirs.fileno()), _behind(ahead_exit[1])}
            socket.send_fds(agents, [READY_HEADER], [theirs.fileno(), ahead_exit[1]])
        fds = [body, worker_exit[1], folder, body, outcome[1]]
        socket.send_fds(agents, [json.dumps(HEADER).encode()], fds)
        descriptors = set(json.loads(os.read(outcome[0], 1 << 16)))
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        assert not poll.poll(0), "it was forked before the worker"
        assert not descriptors & of_the_fork
        assert poll.poll(DEADLINE)
        answer, pidfds, _, _ = socket.recv_fds(ours, 4096, 1)
        for fd in pidfds:
            os.close(fd)
        assert json.loads(answer)["pid"] > 0
