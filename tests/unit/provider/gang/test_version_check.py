"""Nodes of a gang compare what they run."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from airflow_provider.gang.node import GangNode
from airflow_provider.gang.version_check import NodeVersions, differences, exchange
from llutil.launcher.run_id import TaskKey
from llutil.task_link.messages import Hello


def of(node, torch="2.13.0", rerun_token="0", python="3.11.2", launcher="0.1.0"):
    return NodeVersions(
        node=node,
        rerun_token=rerun_token,
        host=f"h{node}",
        torch=torch,
        python=python,
        launcher=launcher,
    )


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([of(1), of(2)], []),
        ([of(1, "2.12.1"), of(2), of(3, "2.14.0")], ["node 1 on h1 has 2.12.1, node 3 on h3 has "
            "2.14.0"]),
        ([of(1, "2.13.0+cpu")], ["node 1 on h1 has 2.13.0+cpu"]),
        ([of(1, python="3.12.0")], ["python is 3.11.2 on this node 0 (h0), but node 1 on h1 has "
            "3.12.0"]),
        ([of(1, "2.12.1", rerun_token="before")], []),
        ([of(1, "")], []),
        ([of(0, "2.12.1")], []),
    ],
)  # fmt: skip
def test_only_what_differs_in_the_same_launch_is_told(others, told):
    found = differences(of(0), others)
    assert len(found) == len(told)
    assert all(text in line for text, line in zip(told, found, strict=True))


class Instance(SimpleNamespace):
    """A task instance whose siblings have pushed ``there``."""

    def xcom_push(self, key, value):
        self.there.append(value)

    def xcom_pull(self, task_ids, key):
        return self.there


def test_the_later_of_two_nodes_sees_the_earlier_one(caplog):
    shared = []
    for number, torch in ((0, "2.13.0"), (1, "2.12.1")):
        node = GangNode(TaskKey("d", "t", "r", number), 2, 2, "life")
        hello = Hello(1, "python", torch=torch, python_version="3.11.2", launcher="0.1.0")
        exchange(node, hello, f"h{number}", Instance(there=shared), logging.getLogger("x"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "torch is 2.12.1 on this node 1 (h1), but node 0 on h0 has 2.13.0" in record.getMessage()


def test_an_api_server_that_is_away_does_not_end_the_task(caplog):
    class Away(Instance):
        def xcom_push(self, key, value):
            raise ConnectionError("refused")

    node = GangNode(TaskKey("d", "t", "r", 0), 2, 2, "life")
    exchange(node, Hello(1, "python"), "h", Away(there=[]), logging.getLogger("x"))
    assert caplog.records == []
