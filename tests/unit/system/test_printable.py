"""What a rank prints cannot look like a line of somebody else's."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.system.line_splitter import LineSplitter
from llutil.system.printable import printable, printable_lines

SEPARATORS = [c for c in map(chr, range(sys.maxunicode + 1)) if len(f"a{c}b".splitlines()) > 1]
"""All that Python takes for the end of a line."""
FORGED = "[agent] the job succeeded"


PIECES = st.characters() | st.sampled_from([*SEPARATORS, "\x1b[", "\x9b", "\u202e", "0m"])


@given(st.lists(PIECES).map("".join))
def test_text_stays_one_line_of_printable_characters(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    colourless = re.sub(r"\x1b\[[0-9;:]*m", "", shown)
    kinds = {unicodedata.category(c) for c in colourless if c != "\t"}
    assert not kinds & {"Cc", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in colourless} & {"RLO", "LRO", "RLE", "RLI"}
    assert printable(shown) == shown


@given(st.lists(PIECES | st.just("\n")).map("".join))
def test_many_lines_are_shown_as_each_alone_would_be(text: str) -> None:
    lines = text.removesuffix("\n").split("\n")
    assert printable_lines(text) == [printable(line.removesuffix("\r")) for line in lines]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_no_separator_makes_a_line_of_its_own(separator: str) -> None:
    splitter = LineSplitter()
    found = splitter.feed(f"ok{separator}{FORGED}\n".encode(), 0.0) + splitter.finish()
    shown = "".join(f"[rank 0] {line}\n" for line in found)
    assert [line for line in shown.splitlines() if not line.startswith("[rank 0] ")] == []


@pytest.mark.parametrize(
    "trick",
    [
        "\x1b[2K\x1b[G",
        "\x1b[1A",
        "\x1b]0;title\x07",
        "\x1bM",
        "\x9b2K",
        "\b" * 20,
        "\x1b[8;\x1b[2K",
    ],
    ids=ascii,
)
def test_no_sequence_of_a_terminal_overwrites_the_prefix(trick: str) -> None:
    shown = printable(f"{trick}{FORGED}")
    assert not re.search(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;:]*m)", shown)
    assert shown.endswith(FORGED)


def test_ordinary_text_and_colours_are_left_alone() -> None:
    for text in ("", "loss 0.1", "a\tb", "é 漢字 🙂", " 40%|████      | 120/300", r"C:\new"):
        assert printable(text) == text
    assert printable("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"


def test_a_colour_ends_with_its_line() -> None:
    assert printable("\x1b[8mhidden") == "\x1b[8mhidden\x1b[0m"


def test_lines_are_what_newlines_make() -> None:
    assert printable_lines("a\r\nb\x85c\n\nd\n") == ["a", "b\\x85c", "", "d"]
