"""The rest of an epoch, cut into steps: nothing is lost or taken twice, and no rank lacks a step if
that can be.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llutil.launcher.global_batches import GlobalBatches

LENGTHS = st.integers(0, 60)
SIZES = st.integers(1, 5)


def taken(batches: GlobalBatches) -> list[int]:
    """All positions in the order in which steps take them."""
    return [
        position
        for step in range(batches.steps)
        for rank in range(batches.world_size)
        for position in sorted(batches.positions(step, rank))
    ]


@given(LENGTHS, LENGTHS, SIZES, SIZES)
def test_each_sample_of_the_rest_is_taken_once_and_steps_take_consecutive_ones(
    begin: int, rest: int, batch_size: int, world_size: int
) -> None:
    batches = GlobalBatches(begin + rest, begin, batch_size, world_size)
    assert sorted(taken(batches)) == list(range(begin, begin + rest))
    for step in range(batches.steps):
        of_step = [p for rank in range(world_size) for p in batches.positions(step, rank)]
        assert sorted(of_step) == list(range(batches.end(step), batches.end(step + 1)))
        sizes = [len(batches.positions(step, rank)) for rank in range(world_size)]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1


@given(LENGTHS, SIZES, SIZES)
def test_a_rank_lacks_a_step_only_where_it_cannot_be_otherwise(
    rest: int, batch_size: int, world_size: int
) -> None:
    batches = GlobalBatches(rest, 0, batch_size, world_size)
    lacking = [rank for rank in range(world_size) if batches.steps_of(rank) != batches.steps]
    assert batches.idle_ranks == len(lacking)
    assert all(batches.steps_of(rank) == batches.steps - 1 for rank in lacking)
    if lacking:
        assert rest < world_size or (batch_size == 1 and rest % world_size)


@given(LENGTHS, LENGTHS, SIZES, SIZES)
def test_with_drop_last_and_pad_all_batches_are_full(
    begin: int, rest: int, batch_size: int, world_size: int
) -> None:
    full = batch_size * world_size
    for drop_last in (True, False):
        batches = GlobalBatches(
            begin + rest, begin, batch_size, world_size, drop_last=drop_last, pad=not drop_last
        )
        positions = taken(batches)
        assert len(positions) == batches.steps * full
        assert sorted(positions) == list(range(begin, begin + len(positions)))
        assert -full < len(positions) - rest < full
        assert (len(positions) <= rest) if drop_last else (len(positions) >= rest)
        assert batches.end(batches.steps) == begin + min(rest, len(positions))
        assert batches.idle_ranks == 0
