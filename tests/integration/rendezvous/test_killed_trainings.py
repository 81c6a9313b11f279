"""Trainings whose nodes and ranks are killed at random steps go on, and lose no more than they may.

``LLUTIL_TEST_KILLS`` is how many kills there are on a store, ``LLUTIL_TEST_SAMPLE_KILLS`` how
many while samples are counted, and ``LLUTIL_TEST_SEED`` which they are. A failure prints the seed.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter

import pytest

from llutil.backends.endpoints import Endpoint
from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Job
from tests.integration.rendezvous.killed_jobs import How, KilledJob, table
from tests.support.ports import free_ports
from tests.support.stores import ETCD, SERVED, SERVED_BY_A_NODE
from tests.support.training_ranks import seen

pytestmark = [pytest.mark.launch, pytest.mark.fault]

_KILLS = int(os.environ.get("LLUTIL_TEST_KILLS", "4"))
_SAMPLE_KILLS = int(os.environ.get("LLUTIL_TEST_SAMPLE_KILLS", "6"))
_SAMPLES = 1009
_SEED = int(os.environ.get("LLUTIL_TEST_SEED", random.SystemRandom().getrandbits(32)))


@pytest.mark.parametrize(
    "store",
    [pytest.param(ETCD, marks=pytest.mark.etcd, id="etcd"), pytest.param(SERVED, id="served")],
)
def test_a_training_that_is_killed_again_and_again_redoes_no_more_than_it_may(job: Job) -> None:
    print("seed:", _SEED)
    _kill(KilledJob(job, _SEED), _KILLS)


@pytest.mark.parametrize("store", [SERVED_BY_A_NODE], ids=str)
def test_nor_does_one_whose_serving_node_is_killed_too(make_job: MakeJob) -> None:
    print("seed:", _SEED)
    job = make_job(Endpoint("127.0.0.1", free_ports(1)[0]))
    _kill(KilledJob(job, _SEED, spares=False), max(_KILLS // 2, 4))


def _kill(killed: KilledJob, kills: int) -> None:
    for how in _ways(kills):
        killed.kill(how)
    killed.stop()
    print(table(killed.kills))
    assert not [kill for kill in killed.kills if kill.redone > kill.allowed]


@pytest.mark.parametrize("store", [SERVED], ids=str)
def test_kills_at_any_moment_cost_no_more_than_the_steps_since_a_checkpoint(job: Job) -> None:
    print("seed:", _SEED)
    killed = KilledJob(job, _SEED)
    for how in _ways(max(_KILLS // 2, 4)):
        killed.kill_soon(how)
    killed.stop()


@pytest.mark.etcd
def test_each_sample_is_seen_once_by_a_committed_step_whoever_is_killed(job: Job) -> None:
    print("seed:", _SEED)
    killed = KilledJob(
        job,
        _SEED,
        nodes=3,
        least=1,
        training="tests.support.training:train_on_samples",
        args={"samples": _SAMPLES, "batch": 3},
    )
    chance = random.Random(_SEED)
    before = 3
    for then in itertools.islice(itertools.cycle([2, 1, 1, 2, 3, 3]), _SAMPLE_KILLS):
        killed.kill(chance.choice([how for how in How if how.costs_a_node or then >= before]), then)
        before = then
    killed.stop()
    print(table(killed.kills))
    assert {kill.nodes for kill in killed.kills} == {1, 2, 3}
    assert not [kill for kill in killed.kills if kill.redone > kill.allowed]
    *whole, last = seen(killed.ranks())
    assert len(whole) >= _SAMPLE_KILLS / 4
    for epoch, samples in enumerate(whole):
        assert samples == Counter(range(_SAMPLES)), epoch
    assert last == Counter(set(last))


def _ways(kills: int) -> list[How]:
    """So many ways, in some order; each as often as the others."""
    ways = [*How] * (-(-kills // len(How)))
    random.Random(_SEED).shuffle(ways)
    return ways[:kills]
