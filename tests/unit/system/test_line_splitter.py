"""From raw output to lines: however the bytes arrive, the reader sees the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.system.line_splitter import LineSplitter
from llutil.system.printable import printable

LONGEST = 64 * 1024
NEVER = float("-inf")  # a time at which no redrawn state is due yet


def lines_of(chunks: list[bytes], *, now: float = 0.0) -> list[str]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk, now)]
    return lines + splitter.finish()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def final_states(stream: bytes) -> list[str]:
    """What a terminal would show once each line is complete: its last state that is not empty."""
    *whole, rest = stream.split(b"\n")
    shown = [next((s for s in reversed(line.split(b"\r")) if s), b"") for line in whole]
    last = next((s for s in reversed(rest.split(b"\r")) if s), b"")
    return [s.decode(errors="backslashreplace") for s in (*shown, *([last] if last else []))]


def is_subsequence(some: list[str], of: list[str]) -> bool:
    remaining = iter(of)
    return all(item in remaining for item in some)


plain = st.binary(max_size=60).map(lambda data: data.replace(b"\r", b"."))
drawn = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\r", b"\n"]), max_size=12).map(b"".join)
places = st.lists(st.integers(min_value=0), max_size=8)


@settings(deadline=None)
@given(plain, places)
def test_lines_do_not_depend_on_how_the_bytes_arrive(stream: bytes, where: list[int]) -> None:
    expected = stream.decode(errors="backslashreplace").split("\n")
    if expected[-1] == "":
        expected.pop()  # the newline ended the line before it
    assert lines_of(cut(stream, where)) == list(map(printable, expected))


@settings(deadline=None)
@given(drawn, places)
def test_with_all_redraws_held_back_each_line_shows_its_last_state(
    stream: bytes, where: list[int]
) -> None:
    assert lines_of(cut(stream, where), now=NEVER) == final_states(stream)


@settings(deadline=None)
@given(drawn, places)
def test_redraws_only_add_states_and_never_take_or_repeat_one(
    stream: bytes, where: list[int]
) -> None:
    lines = lines_of(cut(stream, where))
    states = [
        s.decode(errors="backslashreplace") for s in stream.replace(b"\n", b"\r").split(b"\r")
    ]
    assert is_subsequence(final_states(stream), lines)
    assert is_subsequence(lines, states), "a line that nobody wrote, or one shown twice"
    assert lines.count("") == final_states(stream).count(""), "an empty line that nobody wrote"


def test_a_bar_shows_one_state_a_second_and_its_last_one() -> None:
    splitter = LineSplitter()
    shown = [splitter.feed(b"\r%d%%" % percent, percent / 10) for percent in range(35)]
    assert [lines for lines in shown if lines] == [["0%"], ["10%"], ["20%"], ["30%"]]
    assert splitter.finish() == ["34%"]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\r", b"\n", b"b\r\n"], ["a", "b"]),
        ([b"100%\r", b"\r\r\n"], ["100%"]),
        ([b"100%\r\r\r\n"], ["100%"]),
        ([b"\n", b"\r\n", b"\r\r\n"], ["", "", ""]),
        ([b"no newline at the end"], ["no newline at the end"]),
        ([b""], []),
    ],
)
def test_carriage_returns_before_a_newline_are_no_line_of_their_own(
    chunks: list[bytes], lines: list[str]
) -> None:
    assert lines_of(chunks) == lines


@settings(deadline=None)
@given(st.integers(1, 3 * LONGEST), places)
def test_an_overlong_line_is_cut_in_the_same_places_however_it_arrives(
    length: int, where: list[int]
) -> None:
    lines = lines_of(cut(b"x" * length + b"\nrest", where))
    assert lines.pop() == "rest"
    assert [len(line) for line in lines[:-1]] == [LONGEST] * ((length - 1) // LONGEST)
    assert sum(map(len, lines)) == length


def test_an_overlong_line_is_not_cut_inside_a_character() -> None:
    line = "x" + "€" * LONGEST
    assert "".join(lines_of([line.encode()])) == line
    assert "".join(lines_of(cut(line.encode(), [7, 70_001, 140_000]))) == line


def test_an_overlong_line_of_continuation_bytes_is_cut_all_the_same() -> None:
    lines = lines_of([b"\x80" * (2 * LONGEST)])
    assert "".join(lines) == "\\x80" * (2 * LONGEST)


def test_what_is_not_utf8_is_shown_with_escapes() -> None:
    assert lines_of([b"caf\xc3\xa9 \xff\xfe\n"]) == ["café \\xff\\xfe"]


def test_a_character_that_arrives_in_two_pieces_is_one_character() -> None:
    assert lines_of([b"caf\xc3", b"\xa9\n"]) == ["café"]
