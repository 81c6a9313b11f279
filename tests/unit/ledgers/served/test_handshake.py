"""Frames, and the proof that both sides know a secret: what strangers can send, and what they
learn.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.ledgers.served import handshake
from llutil.ledgers.served.handshake import (
    MAX_MESSAGE,
    MAX_UNPROVED,
    Accepting,
    Frames,
    RefusedError,
    WrongServerError,
    authenticate,
    frame,
)


@given(st.lists(st.binary(max_size=40)), st.data())
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, bodies))
    frames, found = Frames(), []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        found += frames.cut(stream[:length])
        stream = stream[length:]
    assert found == bodies


def test_a_frame_that_is_too_long_is_refused_before_any_of_it_is_kept() -> None:
    frames = Frames(MAX_UNPROVED)
    with pytest.raises(ValueError, match=r"a frame of 1073741824 bytes; at most 512 are read here"):
        list(frames.cut((1 << 30).to_bytes(4, "big") + b"x" * 100))
    assert list(frames.cut(b"")) == []
    with pytest.raises(ValueError, match="at most 16777216 are sent"):
        frame(b"x" * (MAX_MESSAGE + 1))


def _greeting(**changes: object) -> bytes:
    return json.dumps({"llutil_ledger": handshake.VERSION, "nonce": "0" * 64, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"GET / HTTP/1.1", "was asked for something else"),
        (b"[1]", "was asked for something else"),
        (b"[" * 100_000, "was asked for something else"),
        (b"\xff\xfe", "was asked for something else"),
        (_greeting(nonce=7), "was asked for something else"),
        (_greeting(nonce="short"), "was asked for something else"),
        (_greeting(llutil_ledger=99), "version 1 .* version 99: run the same version"),
    ],
)
def test_what_is_no_greeting_is_refused_in_a_sentence(body: bytes, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        Accepting("secret").answer(body)


def test_a_proof_counts_for_one_connection_one_side_and_one_secret() -> None:
    servers = [Accepting("secret") for _ in range(2)]
    greetings = [json.loads(one.answer(_greeting())[4:]) for one in servers]
    proof = handshake._proof("secret", "client", "0" * 64, greetings[0]["nonce"])
    other = handshake._proof("guess", "client", "0" * 64, greetings[0]["nonce"])
    mirrored = handshake._proof("secret", "server", "0" * 64, greetings[0]["nonce"])
    for server, said in [(servers[1], proof), (servers[0], other), (servers[0], mirrored)]:
        with pytest.raises(RefusedError, match="does not accept this node's secret"):
            server.answer(json.dumps({"proof": said}).encode())
        assert not server.done
    for nothing in ({}, {"proof": None}, {"proof": "\ud800"}):
        with pytest.raises(RefusedError, match="does not accept"):
            servers[0].answer(json.dumps(nothing).encode())
    assert not servers[0].done
    servers[0].answer(json.dumps({"proof": proof}).encode())
    assert servers[0].done


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _client(connection: socket.socket, seconds: float = 20.0) -> None:
    authenticate(connection, "node-0:29410", "secret", time.monotonic() + seconds)


def test_who_only_repeats_what_the_client_says_proves_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    def mirror() -> None:
        for _ in range(2):
            theirs.sendall(theirs.recv(4096))

    thread = threading.Thread(target=mirror)
    thread.start()
    with pytest.raises(WrongServerError, match="does not know this job's secret"):
        _client(ours)
    thread.join()


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", WrongServerError, "no ledger of llutil: it sent a frame"),
        (frame(b"\x00\x01"), WrongServerError, "no ledger of llutil"),
        (frame(_greeting(llutil_ledger=2)), RefusedError, "version 2: run the same version"),
        (frame(b'{"refused": "full"}'), RefusedError, "full"),
    ],
)
def test_an_answer_of_something_else_is_an_error_that_says_so(
    pair: tuple[socket.socket, socket.socket],
    answer: bytes,
    error: type[Exception],
    why: str,
) -> None:
    ours, theirs = pair
    theirs.sendall(answer)
    with pytest.raises(error, match=why):
        _client(ours)


def test_who_says_nothing_or_goes_is_given_up_by_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with pytest.raises(TimeoutError):
        _client(ours, 0.05)
    theirs.close()
    with pytest.raises(OSError, match=r"closed the connection|Broken pipe|reset"):
        _client(ours)
