"""Flags on their way from any thread of a task to the socket of its agent."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

import pytest

from airflow_provider.agent_client.steer_queue import SteerQueue
from llutil.task_link.decoder import Decoder
from llutil.task_link.messages import Steer


@pytest.fixture
def queue():
    made = SteerQueue()
    yield made
    made.close()


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def is_readable(queue):
    return bool(select.select([queue], [], [], 0)[0])


def test_what_another_thread_puts_wakes_the_one_that_sends_and_goes_in_order(queue, sockets):
    ours, theirs = sockets
    assert not is_readable(queue)
    thread = threading.Thread(target=lambda: [queue.put([name], "why") for name in "abc"])
    thread.start()
    thread.join()
    assert is_readable(queue)
    queue.taken()
    assert not is_readable(queue)
    queue.send(ours)
    sent = list(Decoder().feed(theirs.recv(10_000)))
    assert sent == [Steer((name,), "why") for name in "abc"]


def test_what_the_socket_does_not_take_now_is_sent_later_and_whole(queue, sockets):
    ours, theirs = sockets
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += ours.send(b" " * 1000)
    queue.put(["pause"], "x" * 10_000)
    queue.send(ours)
    while filled:
        filled -= len(theirs.recv(filled))
    queue.send(ours)
    (sent,) = Decoder().feed(theirs.recv(10_000))
    assert sent == Steer(("pause",), "x" * 1000)


def test_an_agent_that_is_gone_is_no_error(queue, sockets):
    ours, theirs = sockets
    theirs.close()
    queue.put(["pause"], "why")
    queue.send(ours)


def test_what_is_put_after_the_end_is_dropped():
    queue = SteerQueue()
    queue.close()
    queue.put(["pause"], "why")
