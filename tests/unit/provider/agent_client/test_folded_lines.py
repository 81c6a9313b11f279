"""The same line of many ranks becomes one, and nothing else changes."""

from __future__ import annotations

import logging
import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider.agent_client.folded_lines import FoldedLines

RANKS = 4
printed = st.tuples(st.integers(0, RANKS - 1), st.sampled_from("abc"), st.sampled_from([0, 0, 0.2]))


def fold(*printed: tuple[int, str], ranks: int = 8) -> list[str]:
    folded = FoldedLines(ranks)
    for rank, text in printed:
        folded.add(rank, logging.INFO, text, 0.0)
    return [line for _, line in folded.take(float("inf"))]


def of_ranks(lines: list[str]) -> dict[int, list[str]]:
    """What each rank has printed, as the log has it."""
    found: dict[int, list[str]] = {rank: [] for rank in range(RANKS)}
    for line in lines:
        who, _, text = line.partition("] ")
        for part in who.removeprefix("[ranks ").removeprefix("[rank ").split(", "):
            first, _, last = part.partition("-")
            for rank in range(int(first), int(last or first) + 1):
                found[rank].append(text)
    return found


@given(st.lists(printed, max_size=60))
def test_the_lines_of_each_rank_are_all_there_and_in_order(
    given: list[tuple[int, str, float]],
) -> None:
    folded = FoldedLines(RANKS)
    now, lines = 0.0, []
    for rank, text, pause in given:
        folded.add(rank, logging.INFO, text, now)
        lines += [line for _, line in folded.take(now)]
        now += pause
        assert folded.due > now - 0.3 - pause, "no line waits longer"
    lines += [line for _, line in folded.take(now + 0.3)]
    assert folded.due == float("inf")
    assert of_ranks(lines) == {
        rank: [text for who, text, _ in given if who == rank] for rank in range(RANKS)
    }


def test_the_same_line_of_many_ranks_names_them_and_of_few_is_a_line_each() -> None:
    assert fold(*((rank, "epoch 1") for rank in range(8))) == ["[ranks 0-7] epoch 1"]
    assert fold((5, "a"), (0, "a"), (1, "a"), (3, "a")) == ["[ranks 0-1, 3, 5] a"]
    assert fold((1, "a"), (0, "a")) == ["[rank 1] a", "[rank 0] a"]


def test_lines_that_differ_stay_between_those_that_do_not() -> None:
    lines = [(rank, text) for rank in range(3) for text in ("begin", f"loss {rank}", "end")]
    assert fold(*lines) == [
        *("[ranks 0-2] begin", "[rank 0] loss 0", "[rank 1] loss 1", "[rank 2] loss 2"),
        "[ranks 0-2] end",
    ]
    lines = [(rank, text) for rank in range(3) for text in (f"{rank} is here", "end", "end")]
    assert fold(*lines) == [
        *("[rank 0] 0 is here", "[rank 1] 1 is here", "[rank 2] 2 is here"),
        *("[ranks 0-2] end", "[ranks 0-2] end"),
    ]


def test_lines_fold_also_after_lines_that_all_ranks_have_printed_before() -> None:
    here = [(rank, f"{rank} is here") for rank in range(3)]
    lines = [(rank, f"epoch {number}") for rank in range(3) for number in range(2)]
    assert fold(*here, *lines) == [
        *("[rank 0] 0 is here", "[rank 1] 1 is here", "[rank 2] 2 is here"),
        *("[ranks 0-2] epoch 0", "[ranks 0-2] epoch 1"),
    ]


def test_a_rank_that_repeats_a_line_is_heard_each_time() -> None:
    lines = [(rank, "again") for rank in range(3) for _ in range(2)]
    assert fold(*lines) == ["[ranks 0-2] again"] * 2


def test_a_line_goes_as_soon_as_every_rank_has_printed_it_and_after_a_short_time_else() -> None:
    folded = FoldedLines(3)
    for rank in range(3):
        assert list(folded.take(0.0)) == []
        folded.add(rank, logging.INFO, "all", 0.0)
    assert list(folded.take(0.0)) == [(logging.INFO, "[ranks 0-2] all")]
    folded.add(0, logging.INFO, "one", 1.0)
    assert list(folded.take(1.2)) == []
    assert folded.due == 1.3
    assert list(folded.take(1.3)) == [(logging.INFO, "[rank 0] one")]


def test_lines_of_different_levels_are_different() -> None:
    folded = FoldedLines(3)
    for rank, level in enumerate((logging.INFO, logging.INFO, logging.ERROR)):
        folded.add(rank, level, "x", 0.0)
    assert len(list(folded.take(float("inf")))) == 3


def test_any_number_of_lines_fits_between_two() -> None:
    many = [
        (rank, f"{'abc'[rank]}{number}x" * (rank + 1)) for rank in (1, 2) for number in range(1200)
    ]
    lines = fold(
        (0, "first"), (0, "last"), (1, "first"), (2, "first"), *many, (1, "last"), (2, "last")
    )
    assert (lines[0], lines[-1]) == ("[ranks 0-2] first", "[ranks 0-2] last")
    assert of_ranks(lines)[1][1:-1] == [text for rank, text in many if rank == 1]
    assert of_ranks(lines)[2][1:-1] == [text for rank, text in many if rank == 2]


def test_a_flood_of_lines_does_not_wait_and_takes_no_longer_for_each_line() -> None:
    folded = FoldedLines(3)
    lines = []
    for number in range(30_000):
        folded.add(0, logging.INFO, "", 0.0)
        folded.add(1, logging.INFO, f"{number} a", 0.0)
        lines += [line for _, line in folded.take(0.0)]
    assert len(lines) >= 58_000
    assert all(re.match(r"\[rank [01]\] ", line) for line in lines)
