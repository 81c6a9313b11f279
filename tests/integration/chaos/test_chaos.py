"""Trainings under faults, by the plugin's own fixture: real agents, ranks and kills."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llutil.chaos import cut, hang, kill, note_samples, oom, preempt, slow
from llutil.testing.chaos_run import ChaosRun
from tests.support.warm_python import WarmPython

pytestmark = [pytest.mark.launch, pytest.mark.fault]

STEPS = 16


@pytest.fixture
def elastic_chaos_popen(python_with_torch: WarmPython) -> Callable[..., Any]:
    """A node's process has torch imported when it begins."""
    return python_with_torch.popen


def train(total: int, first_life: float = 0.01) -> int:
    """Take the samples 2 * step and 2 * step + 1, one a rank, and save their sum. A step takes
    ``first_life`` seconds until the training resumes.
    """
    from llutil import worker

    done = worker.resume()
    seconds = 0.01 if done else first_life
    step = done.step if done else 0
    total_here = int(Path(done.path, str(worker.rank())).read_text()) if done else 0
    while step < total:
        time.sleep(seconds)
        sample = worker.world_size() * step + worker.rank()
        note_samples([sample])
        total_here += sample
        step += 1
        todo = worker.step(step, total)
        if todo.checkpoint:
            with worker.checkpoint(step) as folder:
                Path(folder, str(worker.rank())).write_text(str(total_here))
        if todo.stop:
            break
    return total_here


def sums(world: int) -> dict[int, int]:
    return {rank: sum(world * step + rank for step in range(STEPS)) for rank in range(world)}


def test_a_training_gets_over_each_fault_that_strikes_a_node(
    elastic_chaos: Callable[..., ChaosRun],
) -> None:
    faults = [
        kill(rank=1, step=3),
        oom(rank=0, step=6),
        hang(rank=1, step=9),
        preempt(node=0, step=11),
        slow(rank=1, factor=2, step=12),
    ]
    # A machine that does much else may take a rank for hanging: that costs a restart.
    limits = {"hang_timeout": 1, "max_restarts": 20}
    run = elastic_chaos(train, [STEPS], steps=STEPS, chaos=faults, **limits)
    assert run.values == sums(2)
    assert run.struck == [str(one) for one in faults[:4]]
    assert run.launches == 2
    assert len(run.rounds) >= 5
    assert sum(text.count("strikes rank") for text in run.output) == 4


def test_a_node_that_is_cut_off_from_its_store_for_longer_than_its_lease_comes_back(
    elastic_chaos: Callable[..., ChaosRun],
) -> None:
    # A server that was stopped gives all leases that time in addition: the cut is longer than such
    # a lease, too, and the ranks still train then.
    run = elastic_chaos(
        train,
        [STEPS, 0.5],
        steps=STEPS,
        nodes=2,
        nproc_per_node=1,
        chaos=[cut(node=1, seconds=4.5, step=1)],
        rdzv_configs={"lease_ttl": 1},
    )
    assert run.values == sums(2)
    assert len(run.rounds) >= 2
    assert any("this node reaches its store again" in text for text in run.output)
