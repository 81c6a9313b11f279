from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.agent.event_loop import EventLoop
from llutil.agent_socket.folder import SocketName, connected, socket_names
from llutil.agent_socket.messages import Answer, Order, Request, decode_answer, encode
from llutil.agent_socket.server import AgentSocket
from tests.support.forks import fork
from tests.support.job_statuses import job_status

STATUS = job_status()
RUN_ID = "run"


class Agent:
    """An agent's socket on a loop, and what it was asked. Its folder is not the usual one, whose
    sockets every agent of this user that begins connects to.
    """

    def __init__(self, folder: Path) -> None:
        self.loop = EventLoop()
        self.requests: list[Request] = []
        self.error: Exception | None = None
        self.status = STATUS
        self.folder = folder
        self.socket = AgentSocket(RUN_ID, self.loop, self._answer, folder)

    def _answer(self, request: Request, caller: str) -> Answer:
        if self.error is not None:
            raise self.error
        assert caller == f"process {os.getpid()}"
        self.requests.append(request)
        return Answer(status=self.status)

    @property
    def names(self) -> list[SocketName]:
        return socket_names(self.folder)

    def connect(self) -> socket.socket:
        (name,) = self.names
        sock = connected(name.path)
        assert sock is not None
        return sock

    def turn(self) -> None:
        """Turn the loop until it has nothing to do."""
        for _ in range(3):
            self.loop.turn(time.monotonic())

    def says(self, data: bytes) -> Answer | None:
        """What is answered to ``data``; None if that is nothing, and the connection is open."""
        with self.connect() as sock:
            self.turn()
            sock.sendall(data)
            self.turn()
            try:
                received = sock.recv(1 << 16)
            except BlockingIOError:
                return None
            return decode_answer(received)

    def close(self) -> None:
        self.socket.close()
        self.loop.close()


@pytest.fixture
def agent(folder: Path) -> Iterator[Agent]:
    agent = Agent(folder)
    yield agent
    agent.close()


def test_a_request_is_one_line_and_has_one_answer(agent: Agent) -> None:
    answer = agent.says(encode(Request(do=Order.STOP, why="enough")))
    assert answer == Answer(status=STATUS)
    assert agent.requests == [Request(do=Order.STOP, why="enough")]


def test_a_script_whose_name_is_no_utf_8_is_shown_and_ends_no_agent(agent: Agent) -> None:
    agent.status = job_status(entrypoint=os.fsdecode(b"tr\xe4in.py"))
    answer = agent.says(encode(Request(do=Order.STATUS)))
    assert answer is not None
    assert answer.status == job_status(entrypoint="tr\\udce4in.py")


def test_a_request_may_come_in_pieces(agent: Agent) -> None:
    with agent.connect() as sock:
        for piece in (b'{"do": ', b'"sta', b'tus"}\n'):
            sock.send(piece)
            agent.turn()
        assert decode_answer(sock.recv(1 << 16)).status == STATUS


NONSENSE = {
    "no JSON": b"\xff\xfe\n",
    "no object": b"[1, 2]\n",
    "no order": b"{}\n",
    "an unknown order": b'{"do": "explode"}\n',
    "a why that is no text": b'{"do": "stop", "why": 3}\n',
    "nothing": b"\n",
    "deep": 2000 * b"[" + b"\n",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_gets_an_error_that_says_what_is_understood(agent: Agent, data: bytes) -> None:
    answer = agent.says(data)
    assert answer is not None
    assert "with one of status, pause, resume, checkpoint, stop" in answer.error
    assert not agent.requests


def test_a_line_that_does_not_end_is_refused_after_4096_bytes(agent: Agent) -> None:
    answer = agent.says(4096 * b"x")
    assert answer == Answer(error="a request has at most 4096 bytes")


def test_a_line_is_awaited_without_an_answer(agent: Agent) -> None:
    assert agent.says(4095 * b"x") is None


def test_who_leaves_without_a_word_leaves_nothing(agent: Agent) -> None:
    watched = agent.loop.fds()
    for data in (b"", b'{"do": "sta', b'{"do": "stop"}\n'):
        with agent.connect() as sock:
            sock.send(data)
        agent.turn()
    assert agent.loop.fds() == watched


def test_of_too_many_connections_the_oldest_is_dropped(agent: Agent) -> None:
    silent = []
    for _ in range(20):
        silent.append(agent.connect())
        agent.turn()
    closed = []
    for sock in silent:
        with sock:
            try:
                closed.append(sock.recv(1) == b"")
            except BlockingIOError:
                closed.append(False)
    assert closed == 4 * [True] + 16 * [False]
    assert agent.says(encode(Request(do=Order.STATUS))) == Answer(status=STATUS)


def test_another_user_gets_no_answer(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent.connect() as sock:
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        sock.send(encode(Request(do=Order.STOP)))
        agent.turn()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert not agent.requests


def test_an_error_of_the_agents_is_told_and_ends_nothing(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.error = RuntimeError("no such slot")
    assert agent.says(encode(Request(do=Order.STATUS))) == Answer(
        error="RuntimeError: no such slot"
    )
    agent.error = None
    assert agent.says(encode(Request(do=Order.STATUS))) == Answer(status=STATUS)
    assert "a request to the agent's socket failed" in caplog.text


def test_a_closed_socket_is_gone_and_closes_its_connections(agent: Agent) -> None:
    with agent.connect() as sock:
        agent.turn()
        agent.socket.close()
        assert sock.recv(1) == b""
    assert not agent.names
    agent.socket.close()  # a second time does nothing


def test_a_job_without_a_socket_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("there is no room")

    monkeypatch.setattr(socket.socket, "listen", refuse)
    with EventLoop() as loop, caplog.at_level(logging.WARNING):
        AgentSocket(RUN_ID, loop, lambda *_: Answer()).close()
    assert "no socket for 'llutil ps' and the like: there is no room" in caplog.text


def test_who_asks_and_goes_away_ends_no_agent_that_broken_pipes_end(agent: Agent) -> None:
    """Off its main thread, an agent cannot set what SIGPIPE does."""
    pid = fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            with agent.connect() as sock:
                agent.turn()
                sock.sendall(b"\n")
            agent.turn()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.fixture(scope="module")
def one_agent() -> Iterator[Agent]:
    with tempfile.TemporaryDirectory(prefix="s-") as place:
        agent = Agent(Path(place, "sockets"))
        yield agent
        agent.close()


@given(data=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["do", "why"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_bytes_end_the_agent(one_agent: Agent, data: bytes) -> None:
    answer = one_agent.says(data.replace(b"\n", b"") + b"\n")
    assert answer is not None
    assert answer.error
