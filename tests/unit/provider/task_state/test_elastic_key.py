"""How often the key ``elastic`` is written, in jobs of few nodes and of many."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider.task_state.elastic_key import ElasticKey
from airflow_provider.task_state.elastic_note import Ended
from airflow_provider.task_state.note_size import LIMIT
from airflow_provider.task_state.store_work import StoreWork
from llutil.task_link.job_events import RoundBegan
from tests.unit.provider.task_state.elastic_values import FACTS, NOON, later, ranks_of, status

LOG = logging.getLogger("t")


class Store:
    """It only counts what is asked of it; ``times`` are of writes."""

    def __init__(self) -> None:
        self.now, self.times, self.reads = 0.0, [], 0

    def get(self, _key: str) -> Any:
        self.reads += 1

    def set(self, _key: str, value: Any) -> None:
        self.times.append(self.now)
        self.value = value

    def delete(self, key: str) -> None:
        raise AssertionError(key)


class Thread:
    """The thread of a store, on the test's clock."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.work = StoreWork(store, lambda _: None, LOG, lambda: NOON)

    def write(self, key: str, value: Any, *, period: float, delay: float = 0.0) -> None:
        self.work.write(key, value, period=period, not_before=self.store.now + delay)

    def passes(self, second: int) -> None:
        self.store.now = float(second)
        self.work.turn(lambda: self.store.now)


def node(nodes: int, number: int, seconds: int, waits: int = 0) -> Store:
    """One of ``nodes`` nodes of 8 ranks, which tells its status every 2 seconds."""
    store = Store()
    thread: Any = Thread(store)
    key = ElasticKey(replace(FACTS, max_nodes=nodes), thread, LOG, str, LIMIT)
    ranks = tuple(range(8 * number, 8 * number + 8))
    for second in range(seconds):
        if second == waits:
            key.hear(RoundBegan(0, 8 * nodes, ranks), later(second))
        if second % 2 == 0 and second < waits:
            key.hear(status(seconds=float(second)), later(second))
        elif second % 2 == 0:
            told = status(*[second] * 8, ranks=ranks_of(*[second] * 8), nodes=nodes)
            key.hear(told, later(second))
        thread.passes(second)
    key.end(Ended(outcome="succeeded", succeeded=True), later(seconds))
    thread.work.finish(succeeded=True)
    return store


@pytest.mark.parametrize(
    ("nodes", "number", "writes"), [(1, 0, 720), (2, 1, 360), (64, 0, 720), (64, 1, 13)]
)
def test_an_hour_costs_so_many_writes_and_one_look_at_what_was_there(nodes, number, writes):
    store = node(nodes, number, 3600)
    assert abs(len(store.times) - writes) <= writes // 10 + 1
    assert store.reads == 1


def test_nodes_that_wait_for_each_other_write_rarely_and_rank_0_often_once_it_runs():
    store = node(64, 0, 700, waits=600)
    waiting = [time for time in store.times if time < 600]
    assert len(waiting) == 2
    assert len(store.times) - len(waiting) >= 100 // 6


def test_the_nodes_of_a_large_gang_do_not_write_together():
    first = {node(64, 1, 40).times[0] for _ in range(20)}
    assert len(first) > 3
    assert max(first) <= 33


def test_a_short_job_writes_once():
    store = node(1, 0, 2)
    assert len(store.times) == 1
    assert store.value["doing"] == "ended"
