"""What a marker says, and what is no marker."""

from __future__ import annotations

import json

import pytest

from llutil.checkpoints.marker import Marker, decode, encode

MARKER = Marker(step=5, world_size=2, job="a", number=7, files={"x/y": 3})


def test_a_marker_is_read_as_it_was_written() -> None:
    assert decode(encode(MARKER)) == MARKER


def test_a_marker_that_is_cut_short_anywhere_is_told() -> None:
    whole = encode(MARKER)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=f"marker of {length} bytes is no JSON, or is cut"):
            decode(whole[:length])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "of version 2; wanted 1"),
        ({"step": None}, "a wrong type"),
        ({"step": "5"}, "a wrong type"),
        ({"job": 3}, "a wrong type"),
        ({"files": []}, "a wrong type"),
        ({"files": {"x": "3"}}, "a wrong type"),
    ],
)
def test_a_marker_with_another_field_is_told(change: dict[str, object], why: str) -> None:
    fields = json.loads(encode(MARKER)) | change
    with pytest.raises(ValueError, match=why):
        decode(json.dumps(fields).encode())


@pytest.mark.parametrize("text", [b"[]", b"5", b"\xff\xfe"])
def test_other_json_and_no_text_are_no_marker(text: bytes) -> None:
    with pytest.raises(ValueError, match="its marker"):
        decode(text)
