"""What the nodes of a gang cost Airflow's api-server: as many requests for a node and a minute in a
large gang as in a small one, and not all nodes at once.
"""

from __future__ import annotations

import random

import pytest
import structlog
from airflow.sdk.execution_time import task_runner

from airflow_provider.execution.slot_wait import SlotWait
from airflow_provider.gang import sibling_node
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import SlotTimeout
from airflow_provider.gang.served_ledger import ServingNode, served_place
from airflow_provider.gang.sibling_node import SiblingNode
from airflow_provider.gang.success_note import NOTE
from airflow_provider.gang.version_check import exchange
from llutil.errors import StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from llutil.ledgers.served.server import LedgerServer
from llutil.task_link.messages import Hello
from tests.support.played_airflow import PlayedAirflow

TOKEN = "0@2026"
TIMEOUT = SlotTimeout(absent=900.0, started=900.0)
CONFIG = LaunchConfig(2, 64, 1, local_addr="127.0.0.1", **served_place({}))
SIZES = pytest.mark.parametrize("nodes", [2, 64])
LOG = structlog.get_logger("t")


@pytest.fixture
def airflow(monkeypatch):
    """Makes a gang's Airflow, all of whose nodes are in one state."""

    def make(nodes, state="running"):
        made = PlayedAirflow([state] * nodes)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
        return made

    return make


@pytest.fixture
def ledger(monkeypatch):
    """A server, which answers however busy the machine is."""
    monkeypatch.setattr(sibling_node, "_KNOCK", 60.0)
    server = LedgerServer("127.0.0.1", 0, secret="secret")
    yield server
    server.close()


def node_of(airflow, number):
    nodes = len(airflow.states)
    return GangNode(TaskKey("d", "t", "r", number), nodes, nodes, TOKEN)


def sibling_of(airflow, number, sleep=lambda _: None, stopped=lambda: False, seed=0):
    ti = airflow.instance(number)
    return SiblingNode(
        node_of(airflow, number),
        ti,
        LOG,
        returns=True,
        timeout=TIMEOUT,
        sleep=sleep,
        stopped=stopped,
        draw=random.Random(seed).random,
    )


def wait_of(airflow, number, **given):
    context = {"ti": airflow.instance(number)}
    return SlotWait(node_of(airflow, number), context, LOG, server=0, timeout=TIMEOUT, **given)


def minute_of_looks(airflow, number):
    """When a sibling looks within a minute, in seconds, if node 0 does not come."""
    times = [0.0]

    def sleep(seconds):
        times.append(times[-1] + seconds)

    sibling = sibling_of(airflow, number, sleep, lambda: times[-1] > 60, seed=number)
    with pytest.raises(StoppedError):
        sibling.meet(CONFIG)
    return times[:-1]


def publish(airflow, ledger):
    """Have node 0 push the notice of its launch, which ``ledger`` plays the server of."""
    serving = ServingNode(node_of(airflow, 0), airflow.instance(0), LOG)
    ledger.secret = serving.meet(CONFIG).rdzv_configs["secret"]
    serving.publish(f"127.0.0.1:{ledger.port}")


@SIZES
def test_a_node_that_waits_for_node_0_makes_so_many_requests_a_minute(airflow, nodes):
    running = airflow(nodes)
    looks = len(minute_of_looks(running, nodes - 1))
    assert looks <= 20
    assert running.requests == {"GetTaskStates": looks, "GetXComSequenceSlice": looks}
    queued = airflow(nodes, "queued")
    assert len(minute_of_looks(queued, nodes - 1)) == looks
    assert queued.requests == {"GetTaskStates": looks}


@SIZES
def test_a_node_that_finds_node_0_has_made_two_requests_and_the_serving_one_has_made_one(
    airflow, ledger, nodes
):
    played = airflow(nodes)
    publish(played, ledger)
    assert played.requests == {"SetXCom": 1}
    played.requests.clear()
    sibling_of(played, nodes - 1).meet(CONFIG)
    assert played.requests == {"GetTaskStates": 1, "GetXComSequenceSlice": 1}


@SIZES
def test_a_node_without_workers_makes_two_requests_each_time_and_node_0_makes_one(
    airflow, ledger, nodes
):
    played = airflow(nodes)
    publish(played, ledger)
    sibling = sibling_of(played, nodes - 1)
    sibling.meet(CONFIG)
    played.requests.clear()
    assert wait_of(played, nodes - 1, lost=sibling.lost).check(10.0) is None
    assert played.requests == {"GetTaskStates": 1, "GetXComSequenceSlice": 1}
    played.requests.clear()
    assert wait_of(played, 0).check(10.0) is None
    assert played.requests == {"GetTaskStates": 1}


@SIZES
def test_the_notes_of_nodes_that_have_succeeded_are_one_request_more(airflow, nodes):
    played = airflow(nodes)
    played.states[0] = "success"
    node = node_of(played, nodes - 1)
    played.pushed(NOTE)[0] = node_of(played, 0).note((0,), 1).to_json()
    view = node.view(played.instance(nodes - 1))
    assert view.notes.keys() == {0}
    assert played.requests == {"GetTaskStates": 1, "GetXComSequenceSlice": 1}


@SIZES
def test_versions_are_compared_by_two_requests_of_each_launch(airflow, nodes):
    played = airflow(nodes)
    for number in range(nodes):
        exchange(node_of(played, number), Hello(1, "python"), "host", played.instance(number), LOG)
    assert played.requests == {"SetXCom": nodes, "GetXComSequenceSlice": nodes}


def test_nodes_that_began_together_do_not_look_together(airflow):
    played = airflow(64)
    looks = sorted(time for number in range(1, 64) for time in minute_of_looks(played, number))
    after = [time for time in looks if time > 5]
    busiest = max(sum(start <= time < start + 0.1 for time in after) for start in after)
    # In step, it would be 63. Spread evenly, it is one or two.
    assert busiest <= 8
