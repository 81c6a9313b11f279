"""Workers that are forked ahead. The server's end of each socket is the test's own, or a fork that
waits as one of a real server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from llutil.agent.start_methods.rank_server import ForkRefused, RankServer
from llutil.agent.start_methods.ready_workers import READY_HEADER, ReadyWorkers
from llutil.agent.start_methods.starter import StartRequest
from llutil.agent.start_methods.worker_start import await_start
from tests.support.descriptors import few_descriptors, open_descriptors
from tests.support.forks import fork, in_a_fork
from tests.unit.agent.start_methods.test_rank_server import Servers

DEADLINE = 30_000  # milliseconds


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def server(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """The agent's end of the server's socket, and the server's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return stack.enter_context(ours), stack.enter_context(theirs)


@pytest.fixture
def workers(stack: ExitStack) -> ReadyWorkers:
    workers = ReadyWorkers()
    stack.callback(workers.close)
    return workers


@pytest.fixture
def request_of_a_worker(stack: ExitStack) -> StartRequest:
    null = os.open(os.devnull, os.O_RDWR)
    stack.callback(os.close, null)
    return StartRequest(order_fd=null, outcome_fd=null, stdout=None, stderr=None, env={"A": "1"})


def asked(server: socket.socket, stack: ExitStack) -> socket.socket:
    """The socket of the fork that the server was asked for."""
    header, fds, _, _ = socket.recv_fds(server, 4096, 3)
    assert header == READY_HEADER
    channel, exit_fd = fds
    stack.callback(os.close, exit_fd)
    return stack.enter_context(socket.socket(fileno=channel))


def answer(channel: socket.socket, pid: int) -> None:
    """That there is the process ``pid``."""
    pidfd = os.pidfd_open(pid)
    socket.send_fds(channel, [json.dumps({"pid": pid, "start": 7}).encode()], [pidfd])
    os.close(pidfd)


def test_as_many_are_asked_for_as_are_missing(
    server: tuple[socket.socket, socket.socket], workers: ReadyWorkers, stack: ExitStack
) -> None:
    ours, theirs = server
    workers.ask(ours, 2)
    workers.ask(ours, 2)
    channels = [asked(theirs, stack) for _ in range(2)]
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    channels[0].close()  # the server has refused
    channels[1].close()
    assert workers.processes() == {}
    workers.ask(ours, 1)
    theirs.setblocking(True)
    asked(theirs, stack)


@in_a_fork
def test_what_there_are_no_descriptors_for_is_left_out(
    server: tuple[socket.socket, socket.socket], workers: ReadyWorkers
) -> None:
    ours, _ = server
    before = open_descriptors()
    for room in range(4):
        with few_descriptors(room):
            workers.ask(ours, 1)
        assert (workers.take(), open_descriptors()) == (None, before)


def test_a_server_that_has_gone_is_asked_for_nothing(
    server: tuple[socket.socket, socket.socket], workers: ReadyWorkers
) -> None:
    ours, theirs = server
    theirs.close()
    workers.ask(ours, 1)
    assert workers.take() is None


def _forked_ahead(servers: Servers, stack: ExitStack) -> tuple[int, socket.socket]:
    """A fork of this process that waits, as its server forks it; and the test's copy of the socket
    on which it is told what it starts with. Once it has that, it prints it and ends.
    """
    channel = asked(servers.ends[0], stack)
    usual = signal.getsignal(signal.SIGTERM)  # other tests of this process may have set it
    pid = fork()
    if pid == 0:
        try:
            start = await_start(channel.detach(), [], lambda: None)
            pending = [int(number) for number in signal.sigpending()]
            is_usual = signal.getsignal(signal.SIGTERM) == usual
            os.write(start.outcome_fd, json.dumps([start.env, pending, is_usual]).encode())
        finally:
            os._exit(0)
    answer(channel, pid)
    stack.callback(os.waitpid, pid, 0)  # it ends by itself, or is killed by who gives it up
    return pid, channel


@pytest.fixture
def servers(stack: ExitStack) -> Servers:
    servers = Servers()
    stack.callback(lambda: [end.close() for end in servers.ends])
    return servers


def test_a_worker_is_what_was_forked_ahead_and_a_signal_before_is_none_to_it(
    servers: Servers, request_of_a_worker: StartRequest, stack: ExitStack
) -> None:
    server = RankServer(servers.start)
    stack.callback(server.close)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        server.prepare(1)
        pid, channel = _forked_ahead(servers, stack)
        channel.close()
        assert server.ready == {pid: 7}
        os.kill(pid, signal.SIGTERM)
        outcome, theirs = os.pipe()
        stack.callback(os.close, outcome)
        worker = server.start(replace(request_of_a_worker, outcome_fd=theirs))
        os.close(theirs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert not isinstance(worker, ForkRefused)
    stack.callback(worker.close)
    assert (worker.pid, worker.start, server.ready) == (pid, 7, {})
    poll = select.poll()
    poll.register(outcome)
    assert poll.poll(DEADLINE)
    assert json.loads(os.read(outcome, 4096)) == [{"A": "1"}, [], True]


def test_the_server_is_asked_where_one_that_was_forked_ahead_has_ended(
    servers: Servers, request_of_a_worker: StartRequest, stack: ExitStack
) -> None:
    server = RankServer(servers.start)
    stack.callback(server.close)
    server.prepare(2)
    gone = asked(servers.ends[0], stack)
    pid = fork()
    if pid == 0:
        os._exit(0)
    stack.callback(os.waitpid, pid, 0)
    answer(gone, pid)
    gone.close()
    asked(servers.ends[0], stack).close()  # the server has refused
    worker = server.start(request_of_a_worker)
    assert not isinstance(worker, ForkRefused)
    assert worker.pid == 0, "what the server has answered"
    worker.close()
    assert server.ready == {}


def test_one_that_was_forked_ahead_ends_when_it_is_not_needed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = fork()
    if pid == 0:
        ours.close()
        await_start(theirs.detach(), [], lambda: None)
        os._exit(1)
    theirs.close()
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
