"""What the agent does when its rank server answers late, wrongly or not at all. The server's end of
the socket is the test's own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from llutil.agent.start_methods import rank_server
from llutil.agent.start_methods.rank_server import ForkRefused, RankServer
from llutil.agent.start_methods.starter import (
    RankServerLostError,
    StartRequest,
    WorkerProcess,
)
from llutil.errors import InfrastructureError
from tests.support.descriptors import few_descriptors, open_descriptors
from tests.support.forks import in_a_fork

# Descriptors that the agent opens for one request: the ends of a pipe, the text, the folder.
FOR_REQUEST = 4


class Process:
    """A rank server that ends when the agent closes its socket."""

    # Greater than the kernel's greatest number of a process (PID_MAX_LIMIT).
    pid = 2**22 + 1

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def poll(self) -> int | None:
        return 0 if self._channel.fileno() < 0 else None

    def kill(self) -> None:
        pass


class Servers:
    """Rank servers. Each has answered before it was asked, with a worker of its own number."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.ends: list[socket.socket] = []

    def start(self) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.processes.append(Process(ours))
        self.ends.append(theirs)
        self.answer(len(self.ends) - 1)
        return self.processes[-1], ours

    def answer(self, number: int) -> None:
        answer = json.dumps({"pid": number, "start": 1}).encode()
        null = os.open(os.devnull, os.O_RDONLY)
        socket.send_fds(self.ends[number], [answer], [null])
        os.close(null)

    @property
    def ended(self) -> list[bool]:
        return [process.poll() is not None for process in self.processes]


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    for end in servers.ends:
        end.close()


@pytest.fixture
def asked() -> Iterator[StartRequest]:
    null = os.open(os.devnull, os.O_RDWR)
    yield StartRequest(order_fd=null, outcome_fd=null, stdout=None, stderr=None, env={})
    os.close(null)


def _started(server: RankServer, asked: StartRequest) -> WorkerProcess:
    worker = server.start(asked)
    assert not isinstance(worker, ForkRefused)
    return worker


@pytest.mark.parametrize("room", range(FOR_REQUEST + 1))
@in_a_fork
def test_an_agent_without_descriptors_says_so_and_leaves_its_server_alone(
    room: int, servers: Servers, asked: StartRequest
) -> None:
    server = RankServer(servers.start)
    before = open_descriptors()
    with few_descriptors(room), pytest.raises(OSError, match="Too many open files") as raised:
        server.start(asked)
    assert raised.value.errno == errno.EMFILE
    assert open_descriptors() == before
    assert servers.ended == [False]
    server.close()


def test_a_server_that_has_gone_is_replaced_while_it_has_no_worker(
    servers: Servers, asked: StartRequest
) -> None:
    server = RankServer(servers.start)
    _started(server, asked).close()
    servers.ends[0].close()
    worker = _started(server, asked)
    assert (worker.pid, servers.ended) == (1, [True, False])
    worker.close()
    server.close()


def test_a_server_that_has_gone_with_workers_is_not_replaced(
    servers: Servers, asked: StartRequest
) -> None:
    server = RankServer(servers.start)
    worker = _started(server, asked)
    servers.ends[0].close()
    with pytest.raises(RankServerLostError, match="did not start one"):
        server.start(asked)
    assert servers.ended == [True]
    worker.close()
    server.close()


def test_a_stop_is_heard_while_the_server_does_not_answer(
    servers: Servers, asked: StartRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_server, "_STOP_PATIENCE", 0.5)
    server = RankServer(servers.start)
    _started(server, asked).close()  # the answer that was there from the start

    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.start(replace(asked, check=check))
    assert servers.ended == [True], "it could start a worker that nobody waits for"


def test_an_answer_soon_after_a_stop_still_counts_so_that_workers_have_their_grace_period(
    servers: Servers, asked: StartRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_server, "_STOP_PATIENCE", 60.0)
    server = RankServer(servers.start)
    first = _started(server, asked)
    checks: list[int] = []

    def check() -> None:
        checks.append(1)
        if len(checks) == 3:
            servers.answer(0)
        raise KeyboardInterrupt

    second = server.start(replace(asked, check=check))
    assert not isinstance(second, ForkRefused)
    assert servers.ended == [False]
    for worker in (first, second):
        worker.close()
    server.close()


@pytest.mark.parametrize("limit", ["_STOP_PATIENCE", "_ANSWER_TIMEOUT"])
def test_an_answer_that_came_while_the_agent_stood_still_counts(
    limit: str, servers: Servers, asked: StartRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RankServer(servers.start)
    first = _started(server, asked)
    monkeypatch.setattr(rank_server, limit, 0.0)  # which is over when the check returns

    def check() -> None:
        servers.answer(0)
        if limit == "_STOP_PATIENCE":
            raise RuntimeError("a stop")

    second = server.start(replace(asked, check=check))
    assert not isinstance(second, ForkRefused)
    assert servers.ended == [False]
    for worker in (first, second):
        worker.close()
    server.close()


def test_a_server_that_does_not_answer_is_given_up(
    servers: Servers, asked: StartRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_server, "_ANSWER_TIMEOUT", 0.2)
    server = RankServer(servers.start)
    worker = _started(server, asked)
    with pytest.raises(InfrastructureError, match=r"did not answer within 0\.2 s"):
        server.start(asked)
    worker.close()
