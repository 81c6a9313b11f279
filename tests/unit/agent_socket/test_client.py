from __future__ import annotations

import json
import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from llutil.agent_socket.client import Heard, ask
from llutil.agent_socket.folder import SocketName, bound_socket, socket_names
from llutil.agent_socket.messages import Answer, Order, Request, decode_request, encode
from tests.support.job_statuses import job_status

STATUS = Request(do=Order.STATUS)


@contextmanager
def agent(folder: Path, run_id: str, *pieces: bytes) -> Iterator[SocketName]:
    """An agent that answers one request with ``pieces``."""
    listener, path = bound_socket(run_id, folder)
    listener.setblocking(True)

    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(4096) == encode(STATUS)
            for piece in pieces:
                sock.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    with listener:
        yield SocketName(path, os.getpid(), run_id)
        thread.join()


def test_all_are_asked_at_once(folder: Path) -> None:
    with ExitStack() as stack:
        for run_id in ("a", "b"):
            line = encode(Answer(status=job_status(run_id)))
            stack.enter_context(agent(folder, run_id, line[:10], line[10:]))
        heard = ask(socket_names(folder), STATUS, 60)
    assert {one.status.run_id for one in heard if one.status} == {"a", "b"}
    assert [one.problem for one in heard] == ["", ""]


def test_an_agent_whose_training_diverges_is_heard(folder: Path) -> None:
    """Its loss is not a number any more, for which JSON has no word."""
    metrics = {"loss": math.nan, "norm": math.inf, "lr": 0.5}
    line = encode(Answer(status=job_status("run", metrics=metrics)))
    json.loads(line, parse_constant=pytest.fail)
    with agent(folder, "run", line) as name:
        (heard,) = ask([name], STATUS, 60)
    assert heard.problem == ""
    assert heard.status is not None
    assert {name: str(value) for name, value in heard.status.metrics.items()} == {
        "loss": "nan",
        "norm": "nan",
        "lr": "0.5",
    }


def test_who_does_not_answer_in_time_is_named(folder: Path) -> None:
    sock, path = bound_socket("stuck", folder)
    with sock:
        name = SocketName(path, os.getpid(), "stuck")
        assert ask([name], STATUS, 0.01) == [Heard(name, problem="no answer within 0.01 s")]


def test_who_has_ended_is_left_out(folder: Path) -> None:
    bound_socket("killed", folder)[0].close()
    with agent(folder, "ends"):  # it closes the connection without an answer
        assert ask(socket_names(folder), STATUS, 60) == []


def test_an_error_is_the_problem(folder: Path) -> None:
    with agent(folder, "run", encode(Answer(error="no such order"))) as name:
        assert ask([name], STATUS, 60) == [Heard(name, problem="no such order")]


def test_another_versions_answer_is_told_as_such(folder: Path) -> None:
    with agent(folder, "run", b'{"hello": 1, "status": 3}\n') as name:
        (heard,) = ask([name], STATUS, 60)
    assert heard.problem.startswith("its answer is none of this version's: ")


def test_an_agent_of_another_user_is_not_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, path = bound_socket("theirs", folder)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with sock:
        assert ask([SocketName(path, os.getpid(), "theirs")], STATUS, 60) == []
        with sock.accept()[0] as connection:
            assert connection.recv(1) == b""


def test_an_agent_that_too_many_wait_for_is_named(folder: Path) -> None:
    sock, path = bound_socket("busy", folder)
    sock.listen(0)
    with sock, socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        name = SocketName(path, os.getpid(), "busy")
        (heard,) = ask([name], STATUS, 60)
    assert heard.problem == "it answers nobody: too many wait for it"


def test_a_reason_in_bytes_of_another_encoding_arrives(folder: Path) -> None:
    why = os.fsdecode(b"gut gen\xfcg")  # as Python has it of a Latin-1 terminal's command line
    sock, path = bound_socket("run", folder)
    with sock:
        ask([SocketName(path, os.getpid(), "run")], Request(do=Order.STOP, why=why), 0.01)
        with sock.accept()[0] as connection:
            request = decode_request(connection.recv(4096))
    assert request == Request(do=Order.STOP, why="gut gen\\udcfcg")
