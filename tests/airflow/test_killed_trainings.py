"""Trainings in a real Airflow whose tasks are marked failed and cleared at random steps redo one
step at most each time.

``LLUTIL_TEST_KILLS`` is how many times each of both happens, with steps of a millisecond then, and
``LLUTIL_TEST_SEED`` says when and to which nodes. A failure prints the seed.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.airflow.client import Client
from tests.airflow.conftest import Meeting
from tests.airflow.killed_gangs import How, KilledGang, table
from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]

_IS_LONG = "LLUTIL_TEST_KILLS" in os.environ
_KILLS = int(os.environ.get("LLUTIL_TEST_KILLS", "4"))
_SEED = int(os.environ.get("LLUTIL_TEST_SEED", random.SystemRandom().getrandbits(32)))
# Steps of a millisecond on 16 ranks keep two cores from all else.
_STEP = 0.001 if _IS_LONG else 0.01
_DAGS = ("killed", "killed_alone") * 2


def test_a_training_that_is_marked_failed_or_cleared_again_and_again_redoes_a_step_at_most(
    client: Client, server: Airflow, meeting: Meeting, tmp_path: Path
) -> None:
    assert meeting
    print("seed:", _SEED)
    client.await_dags(*_DAGS)
    gangs = []
    for number, dag_id in enumerate(_DAGS):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        run = client.trigger(dag_id, {"folder": str(folder), "seconds": _STEP})
        needs_both = dag_id == "killed_alone"
        gangs.append(KilledGang(run, server, folder, _SEED + number, needs_both=needs_both))
    ways = [*How] * _KILLS
    random.Random(_SEED).shuffle(ways)
    try:
        with ThreadPoolExecutor() as threads:
            ends = [
                threads.submit(_kill, gang, itertools.islice(ways, number, None, len(gangs)))
                for number, gang in enumerate(gangs)
            ]
            for end in ends:
                end.result()
    finally:
        for gang in gangs:
            gang.run.end()
    kills = [kill for gang in gangs for kill in gang.kills]
    for dag_id in dict.fromkeys(_DAGS):
        print(dag_id)
        print(table(kill for gang in gangs if gang.run.dag_id == dag_id for kill in gang.kills))
    assert not [kill for kill in kills if kill.redone > 1]


def _kill(gang: KilledGang, ways: Iterable[How]) -> None:
    for how in ways:
        gang.kill(how)
    gang.stop()
