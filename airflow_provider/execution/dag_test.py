"""Runs a gang under ``dag.test()``: the first task instance runs all nodes, on this machine.

``dag.test()`` runs mapped task instances one after the other in one process (Airflow 3.3). There,
nodes of a gang would wait for each other for ever. So the first instance starts an agent for each
node. The agent of node 0 serves the ledger, on the loopback interface, so no service is needed. The
other instances find their results in XCom.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider.gang.ledger_notice import SERVING_NODE
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.served_ledger import new_secret
from airflow_provider.gang.xcom_values import pull_all
from airflow_provider.results.reference import reference_from_json, reference_to_json
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.backends.table import SERVED
from llutil.errors import LaunchError, ServerLostError, StoppedError

if TYPE_CHECKING:
    from airflow_provider.execution.launch import Launch
    from airflow_provider.hooks.agent import AgentHook

__all__ = [
    "DAG_TEST_RESULTS",
    "LOCAL_PARAMETERS",
    "DagTestGang",
    "GangResults",
    "is_dag_test",
    "results_of_dag_test",
]

DAG_TEST_RESULTS = "dag_test_results"
"""The XCom of what the ranks of all nodes returned in ``dag.test()``; the first instance has it."""

_LOOPBACK = "127.0.0.1"

LOCAL_PARAMETERS: Mapping[str, Any] = {
    "rdzv_backend": SERVED.name,
    "rdzv_endpoint": f"{_LOOPBACK}:0",
    "rdzv_configs": None,
    "rdzv_conn_id": None,
    "rerun_token": "",
    "node_index": None,
    "local_addr": _LOOPBACK,
}
"""The parameters of a launch whose nodes are all on this machine. The port is set later, when node
0 says which it is.
"""

_INTERRUPTION_CHECK_PERIOD = 0.5
"""How late an interruption of the main thread is noticed at most, in seconds."""


def is_dag_test() -> bool:
    """Whether ``dag.test()`` runs this task in its own process, as it does without
    ``use_executor=True``.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return isinstance(comms, InProcessSupervisorComms)


@dataclass(frozen=True, slots=True)
class GangResults:
    """What the ranks of each node returned, by node and rank, and how many ranks there were."""

    results: Mapping[int, Mapping[int, Any]]
    world_size: int

    def without_values(self) -> GangResults:
        """The same ranks, all of which returned nothing."""
        return replace(
            self, results={node: dict.fromkeys(ranks) for node, ranks in self.results.items()}
        )

    def to_json(self, rerun_token: str) -> dict[str, Any]:
        """The XCom value, for instances with this ``rerun_token``."""
        # As text: XCom would take what stands for an object in it for its own.
        results = json.dumps(
            {
                node: {rank: reference_to_json(value) for rank, value in ranks.items()}
                for node, ranks in self.results.items()
            }
        )
        return {
            "version": 1,
            "rerun_token": rerun_token,
            "world_size": self.world_size,
            "results": results,
        }


def results_of_dag_test(ti: Any, node: GangNode) -> GangResults | None:
    """The results that an earlier task instance of this DAG run has pushed for all nodes; None if
    there are none.
    """
    for value in pull_all(ti, node.key.task_id, DAG_TEST_RESULTS):
        if isinstance(value, Mapping) and value.get("rerun_token") == node.rerun_token:
            results = {
                int(number): {
                    int(rank): reference_from_json(result) for rank, result in ranks.items()
                }
                for number, ranks in json.loads(value["results"]).items()
            }
            return GangResults(results, value["world_size"])
    return None


class DagTestGang:
    """Runs all nodes of a gang at once.

    :param make_hook: makes the hook of one node; its argument is the node's label in the log.
    """

    def __init__(self, node: GangNode, make_hook: Callable[[str], AgentHook]) -> None:
        self._node = node
        self._hooks = [make_hook(f"node {number}") for number in range(node.nodes)]
        self._outcomes: list[dict[int, Any] | BaseException | None] = [None] * node.nodes
        self._said: queue.SimpleQueue[int | str] = queue.SimpleQueue()
        """A node's number when it has ended; the ledger's endpoint when node 0 serves it."""

    def stop(self, reason: str) -> None:
        """Ask all agents to end their job. Safe in signal handlers, as ``AgentHook.stop`` is."""
        for hook in self._hooks:
            hook.stop(reason)

    def run(self, launch: Launch, log: logging.Logger) -> GangResults:
        """Run ``launch`` on every node.

        :raises LaunchError: a node failed; the first one that did so by itself.
        """
        log.info(
            "dag.test() runs mapped tasks one after the other: all %d nodes of this gang run now, "
            "on this machine; the other task instances return their own node's results",
            self._node.nodes,
        )
        secret = new_secret()
        running: set[int] = set()
        threads: list[threading.Thread] = []

        def start(number: int, endpoint: str) -> None:
            local = self._local(launch, number, endpoint, secret)
            thread = threading.Thread(
                target=self._run_one, args=(number, local, log), name=f"node-{number}"
            )
            threads.append(thread)
            running.add(number)
            thread.start()

        try:
            start(SERVING_NODE, f"{_LOOPBACK}:0")
            while running:
                match self._next_said():
                    case int(number):
                        running.discard(number)
                    case str(endpoint):
                        for number in range(1, self._node.nodes):
                            start(number, endpoint)
                    case None:
                        pass
        except BaseException as interruption:
            self.stop(f"the task was interrupted by {type(interruption).__name__}")
            running &= {number for number, thread in enumerate(threads) if thread.ident is not None}
            while running:  # each hook has a deadline once it is stopped
                running -= {self._next_said()}
            raise
        return self._outcome()

    def _next_said(self) -> int | str | None:
        """What the nodes' threads say next; None if they say nothing for a moment.

        ``Thread.join`` cannot be used: if an exception interrupts it, it marks the thread as ended
        (Python 3.11).
        """
        with suppress(queue.Empty):
            return self._said.get(timeout=_INTERRUPTION_CHECK_PERIOD)
        return None

    def _local(self, launch: Launch, number: int, endpoint: str, secret: str) -> Launch:
        """``launch`` for the node ``number`` on this machine."""
        serves = number == SERVING_NODE
        config = replace(
            launch.config,
            min_nodes=self._node.nodes,  # all of them start at once
            rdzv_endpoint=endpoint,
            rdzv_configs={"serves": serves, "secret": secret},
            node_index=number,
            node_label=f"node {number}",
        )
        key = replace(launch.key, map_index=number)
        local = replace(launch, config=config, key=key, retry=LaunchRetry(attempts=1))
        return replace(local, publish=self._said.put) if serves else local

    def _run_one(self, number: int, launch: Launch, log: logging.Logger) -> None:
        try:
            self._outcomes[number] = launch.run(self._hooks[number], log)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._outcomes[number] = error
            self.stop(f"node {number} failed")
        finally:
            self._said.put(number)

    def _outcome(self) -> GangResults:
        errors = [outcome for outcome in self._outcomes if isinstance(outcome, BaseException)]
        if errors:
            # Nodes that were stopped, or that lost node 0, failed only because another one failed.
            follows = (StoppedError, ServerLostError)
            raise next((one for one in errors if not isinstance(one, follows)), errors[0])
        results: dict[int, dict[int, Any]] = {}
        for number, outcome in enumerate(self._outcomes):
            if not isinstance(outcome, dict):
                raise LaunchError(f"node {number} ended without a result or an error")
            results[number] = outcome
        return GangResults(results, max(hook.world_size for hook in self._hooks))
