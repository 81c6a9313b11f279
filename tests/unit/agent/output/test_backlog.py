"""Of a stream that nobody can take for a while, the end is kept and the rest is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llutil.agent.output.backlog import Backlog

KEPT = 20


@given(st.binary(max_size=5), st.lists(st.sampled_from([b"ab\n", b"\n", b"c" * 30, b"d\nef"])))
def test_what_is_kept_is_the_end_and_all_before_it_is_counted(
    begun: bytes, given: list[bytes]
) -> None:
    backlog = Backlog(begun, KEPT)
    for data in given:
        backlog.add(data)
    printed = begun + b"".join(given)
    left_out = printed[: backlog.size]
    assert backlog.kept == printed[backlog.size :]
    assert backlog.lines == left_out.count(b"\n")
    assert len(backlog.kept) <= 2 * KEPT
    assert len(backlog.kept) >= min(KEPT, len(printed))


def test_whole_lines_are_left_out_where_there_are_some() -> None:
    backlog = Backlog(b"", KEPT)
    for number in range(10, 40):
        backlog.add(b"%d\n" % number)
    assert (backlog.lines, backlog.size) == (21, 63)
    assert backlog.kept.startswith(b"31\n")
    assert backlog.kept.endswith(b"39\n")
