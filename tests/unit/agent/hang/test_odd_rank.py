"""Which rank of a hang is named, and when ranks that stand still are no hang."""

from __future__ import annotations

from typing import Any

import pytest

from llutil.agent.hang.hang_watch import Suspicion
from llutil.agent.hang.odd_rank import SeenRank, hang_of
from llutil.agent.hang.stack_text import Frame, Stack

TORCH = "/v/lib/python3.11/site-packages/torch"
IN_A_LOCK = Stack(((Frame("/home/user/train.py", 7, "take"),),))
IN_A_STEP = Stack(((Frame("/home/user/train.py", 9, "train"),),))
IN_A_COLLECTIVE = Stack(
    (
        (
            Frame(f"{TORCH}/distributed/distributed_c10d.py", 3000, "barrier"),
            Frame(f"{TORCH}/distributed/c10d_logger.py", 83, "wrapper"),
            Frame("/home/user/train.py", 12, "train"),
        ),
    )
)
IN_BACKWARD = Stack(((Frame(f"{TORCH}/autograd/graph.py", 870, "_engine_run_backward"),),))


def rank(number: int, stack: Stack | None, step: int | None = 5, heartbeat: int = 100) -> SeenRank:
    return SeenRank(
        local_rank=number,
        rank=number,
        pid=number,
        step=step,
        heartbeat=heartbeat if step is not None else 0,
        stack=stack,
    )


def suspicion(*ranks: int, idle: set[int] | None = None, **values: Any) -> Suspicion:
    settings = {"only_idle": True, "certain": False} | values
    idle = set(ranks) if idle is None else idle
    return Suspicion(dict.fromkeys(ranks, 500.0), frozenset(idle), **settings)


@pytest.mark.parametrize("waiting", [IN_A_COLLECTIVE, IN_BACKWARD], ids=["barrier", "backward"])
def test_the_rank_that_waits_for_nobody_is_named(waiting: Stack) -> None:
    ranks = [rank(0, waiting), rank(1, IN_A_LOCK), rank(2, waiting)]
    odd = hang_of(suspicion(0, 1, 2), ranks, one_node=True)
    assert odd is not None
    assert odd.rank.rank == 1
    assert odd.why.startswith("others wait for it in ")


def test_a_rank_that_never_reports_is_named_if_the_others_wait_for_it() -> None:
    ranks = [rank(0, IN_A_COLLECTIVE), rank(1, IN_A_LOCK, step=None)]
    odd = hang_of(suspicion(0, idle={0, 1}), ranks, one_node=True)
    assert odd is not None
    assert odd.rank.rank == 1


def test_the_rank_whose_step_is_behind_is_named() -> None:
    ranks = [rank(0, IN_A_STEP, 6), rank(1, IN_A_STEP, 5), rank(2, IN_A_STEP, 6)]
    odd = hang_of(suspicion(0, 1, 2), ranks, one_node=True)
    assert odd is not None
    assert (odd.rank.rank, odd.why) == (1, "its step is 5, and others have made step 6")


def test_the_rank_whose_stack_is_another_one_is_named() -> None:
    ranks = [rank(0, IN_A_STEP), rank(1, IN_A_STEP), rank(2, IN_A_LOCK)]
    odd = hang_of(suspicion(0, 1, 2), ranks, one_node=True)
    assert odd is not None
    assert (odd.rank.rank, odd.why) == (2, "its stack differs from the stack of the others")


def test_of_equal_ranks_the_one_that_was_silent_first_is_named_with_a_warning() -> None:
    ranks = [rank(0, None, heartbeat=9), rank(1, None, heartbeat=8)]
    odd = hang_of(suspicion(0, 1), ranks, one_node=True)
    assert odd is not None
    assert odd.rank.rank == 1
    assert "cannot be told" in odd.why


def test_a_rank_that_is_alone_needs_no_reason() -> None:
    odd = hang_of(suspicion(0), [rank(0, IN_A_LOCK)], one_node=True)
    assert odd is not None
    assert (odd.rank.rank, odd.why) == (0, "")


@pytest.mark.parametrize("idle_stack", [IN_A_COLLECTIVE, IN_A_LOCK, None])
def test_ranks_that_may_wait_for_one_that_works_do_not_hang(idle_stack: Stack | None) -> None:
    ranks = [rank(0, IN_A_STEP), rank(1, idle_stack)]
    assert hang_of(suspicion(1), ranks, one_node=True) is None


def test_a_rank_that_waits_with_all_its_processor_is_none_that_works() -> None:
    ranks = [rank(0, IN_A_COLLECTIVE), rank(1, IN_A_LOCK)]
    odd = hang_of(suspicion(1), ranks, one_node=True)
    assert odd is not None
    assert odd.rank.rank == 1


def test_a_node_whose_ranks_all_wait_leaves_the_first_word_to_another_node() -> None:
    ranks = [rank(0, IN_A_COLLECTIVE), rank(1, IN_BACKWARD)]
    for only_idle in (True, False):
        assert hang_of(suspicion(0, 1, only_idle=only_idle), ranks, one_node=False) is None
    odd = hang_of(suspicion(0, 1, certain=True), ranks, one_node=False)
    assert odd is not None
    assert odd.elsewhere


def test_ranks_that_all_wait_for_each_other_hang() -> None:
    ranks = [rank(0, IN_A_COLLECTIVE), rank(1, IN_BACKWARD)]
    odd = hang_of(suspicion(0, 1), ranks, one_node=True)
    assert odd is not None
    assert not odd.elsewhere


def test_a_node_of_several_without_stacks_waits_until_it_is_certain() -> None:
    ranks = [rank(0, None)]
    assert hang_of(suspicion(0), ranks, one_node=False) is None
    assert hang_of(suspicion(0, only_idle=False), ranks, one_node=False) is not None


def test_a_rank_in_a_lock_hangs_whatever_other_nodes_do() -> None:
    odd = hang_of(suspicion(0), [rank(0, IN_A_LOCK)], one_node=False)
    assert odd is not None
    assert not odd.elsewhere
