"""Frames: what a rank said arrives whole or is known to be incomplete."""

from __future__ import annotations

import os
import struct
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.agent.worker_side.outcome_pipe import (
    ErrorNote,
    Note,
    OutcomeReader,
    Refused,
    Returned,
    frame,
    write_frame,
)

returned = st.builds(Returned, st.binary(max_size=200), st.booleans())
errors = st.builds(
    ErrorNote,
    kind=st.text(max_size=20),
    text=st.text(alphabet=st.characters(), max_size=50),  # lone surrogates too
    trace=st.text(max_size=50),
    fatal=st.booleans(),
    bad_configuration=st.booleans(),
    at=st.floats(allow_nan=False),
    exit_code=st.none() | st.integers(0, 255),
)
notes = returned | errors | st.builds(Refused, st.text(max_size=50))


@settings(deadline=None)
@given(notes, st.lists(st.integers(1, 50), max_size=30))
def test_a_frame_round_trips_in_whatever_pieces_it_arrives(note: Note, sizes: list[int]) -> None:
    data = b"".join(frame(note))
    collector = OutcomeReader()
    for size in sizes:
        collector.feed(data[:size])
        data = data[size:]
    collector.feed(data)
    assert collector.note() == note


@settings(deadline=None)
@given(notes, st.integers(min_value=0))
def test_any_cut_leaves_a_frame_that_is_known_to_be_incomplete(note: Note, place: int) -> None:
    data = b"".join(frame(note))
    collector = OutcomeReader()
    collector.feed(data[: place % len(data)])
    assert collector.note() is None


def test_a_value_larger_than_the_pipe_is_written_whole() -> None:
    read, write = os.pipe()
    note = Returned(os.urandom(1 << 20), pickled=True)
    writer = threading.Thread(target=write_frame, args=(write, note))
    writer.start()
    collector = OutcomeReader()
    while collector.note() is None:
        collector.feed(os.read(read, 1 << 16))
    writer.join(10)
    os.close(read)
    os.close(write)
    assert collector.note() == note


def test_a_large_value_is_in_memory_once() -> None:
    size = 1 << 24
    data = b"".join(frame(Returned(bytes(size), pickled=True)))
    reader = OutcomeReader()
    chunk = 1 << 18
    tracemalloc.start()
    try:
        for start in range(0, len(data), chunk):
            reader.feed(data[start : start + chunk])
            reader.note()
        note = reader.note()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(note, Returned)
    assert len(note.content) == size
    assert peak < 1.5 * size


def test_nobody_left_to_read_is_an_error_and_no_signal() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with pytest.raises(BrokenPipeError):
            write_frame(write, Returned(b"x", pickled=True))
    finally:
        os.close(write)


@pytest.mark.parametrize(
    "data",
    [
        b"what is this, which nobody of us has written?",
        struct.pack(">cQ", b"X", 2) + b"{}",
        struct.pack(">cQ", b"E", 4) + b"nope",
        struct.pack(">cQ", b"E", 2) + b"{}",
        struct.pack(">cQ", b"E", 4) + b"null",
    ],
)
def test_bytes_that_are_no_frame_say_nothing(data: bytes) -> None:
    """A program that closed all its descriptors may have got the pipe's number for a file of its
    own.
    """
    collector = OutcomeReader()
    collector.feed(data)
    assert collector.note() is None
