"""What is wrong with the steps and samples of a job is found, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llutil.testing.history import (
    RankHistory,
    Round,
    problems_of_samples,
    problems_of_steps,
    rounds_in,
)


def one_round(first: int, *lasts: int, world: int = 0, samples: Any = None) -> Round:
    """A round whose ranks began at ``first`` and ended at ``lasts``; each took a sample a step."""
    ranks = []
    for rank, last in enumerate(lasts):
        steps = tuple(range(first, last + 1))
        taken = samples or (lambda step, rank: (0, (len(lasts) * (step - 1) + rank,)))
        ranks.append(
            RankHistory(
                rank=rank,
                node=0,
                steps=steps,
                samples=tuple((taken(step, rank),) for step in steps),
                struck=(),
            )
        )
    return Round(name=f"{first}", world=world or len(lasts), ranks=tuple(ranks))


@pytest.mark.parametrize(
    "rounds",
    [
        [one_round(1, 9, 9)],
        [one_round(1, 5, 4), one_round(5, 9, 9)],
        [one_round(1, 5, 4), one_round(4, 6, 6), one_round(7, 9, 9, 9)],
        [one_round(1, 1), one_round(1, 9, 9)],
    ],
)
def test_a_job_that_went_on_from_its_checkpoints_has_no_problem(rounds: list[Round]) -> None:
    assert list(problems_of_steps(rounds, 9, 2)) == []


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([], "no rank called worker.step"),
        ([one_round(1, 9, 8)], "the last steps of the job's 2 ranks are {0: 9, 1: 8}, by rank"),
        ([one_round(1, 9, world=2)], "the last steps of the job's 2 ranks are {0: 9}"),
        ([one_round(1, 10, 10)], "wanted 9 for each"),
        ([one_round(1, 3), one_round(5, 9)], "round 2 of 2 began at step 5 after step 3: steps"),
        ([one_round(2, 9)], "round 1 of 1 began at step 2 after step 0: steps are lost"),
        ([one_round(1, 6), one_round(3, 9)], "began at step 3 after step 6: more than checkpoint"),
    ],
)
def test_steps_that_are_lost_or_done_again_too_often_are_named(
    rounds: list[Round], said: str
) -> None:
    (problem,) = problems_of_steps(rounds, 9, 2)
    assert said in problem


def test_nobody_knows_how_many_steps_an_interval_of_time_costs() -> None:
    assert list(problems_of_steps([one_round(1, 8), one_round(1, 9)], 9, None)) == []


def test_ranks_of_a_round_begin_together_and_count_one_by_one() -> None:
    apart = Round(name="", world=2, ranks=(*one_round(1, 9).ranks, one_round(2, 9, 9).ranks[1]))
    assert "its ranks began at different steps: [1, 2]" in next(problems_of_steps([apart], 9, 2))
    (rank,) = one_round(1, 2).ranks
    skips = RankHistory(rank=0, node=0, steps=(1, 9), samples=rank.samples, struck=())
    (problem,) = problems_of_steps([Round(name="", world=1, ranks=(skips,))], 9, 2)
    assert "rank 0 did not count its steps one by one: (1, 9)" in problem


def test_samples_of_steps_that_are_done_again_count_once() -> None:
    assert list(problems_of_samples([one_round(1, 5, 4), one_round(4, 9, 9)])) == []


def test_samples_that_are_taken_twice_or_left_out_are_named() -> None:
    rounds = [one_round(1, 3), one_round(4, 6, samples=lambda step, _: (0, (step - 2,)))]
    (problem,) = problems_of_samples(rounds)
    assert problem == "epoch 0: 1 samples were trained on twice, as [2]"

    def of_two_epochs(step: int, _: int) -> tuple[int, tuple[int, ...]]:
        return (0, (step,)) if step < 3 else (1, (step - 2,))

    assert list(problems_of_samples([one_round(1, 5, samples=of_two_epochs)])) == [
        "epoch 0: 1 samples were left out, as [3]"
    ]
    assert list(problems_of_samples([one_round(1, 3, samples=of_two_epochs)])) == []


def test_rounds_are_read_in_their_order_and_half_a_line_is_none(tmp_path: Path) -> None:
    def written(name: str, round_name: str, *said: dict[str, Any], end: str = "") -> None:
        head = {"rank": 0, "world": "1", "node": "0", "round": round_name}
        text = "".join(json.dumps(one) + "\n" for one in (head, *said))
        (tmp_path / name).write_text(text + end)

    written("1-0-7", "a", {"samples": [1, 2], "epoch": 0}, {"step": 1}, end='{"step"')
    written("2-0-8", "b")  # it came to no step
    written("3-0-9", "c", {"step": 2}, {"struck": "kill(rank=0, step=2)", "step": 2})
    first, last = rounds_in(tmp_path)
    assert first.ranks[0].steps == (1,)
    assert first.ranks[0].samples == (((0, (1, 2)),),)
    assert (last.name, last.first, last.last) == ("c", 2, 2)
    assert last.ranks[0].struck == ("kill(rank=0, step=2)",)
