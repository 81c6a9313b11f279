"""Runs one node of a gang: it looks at the sibling task instances first, then launches, or ends
because the job does not need it.

``run_node`` acts; the decisions are in ``airflow_provider.gang``.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider.execution.dag_test import (
    DAG_TEST_RESULTS,
    DagTestGang,
    is_dag_test,
    results_of_dag_test,
)
from airflow_provider.execution.final_exception import hopeless_exception
from airflow_provider.execution.slot_wait import SlotWait
from airflow_provider.gang.ledger_notice import SERVING_NODE
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import slot_timeout
from airflow_provider.gang.served_ledger import ServingNode, is_served
from airflow_provider.gang.sibling_node import NotNeededError, SiblingNode
from airflow_provider.gang.siblings import GangDone, GangHopeless, GangLost, GangOpen, outlook
from airflow_provider.gang.success_note import SuccessNote
from llutil.errors import LaunchError, RendezvousError, ResultError

if TYPE_CHECKING:
    from airflow_provider.execution.launch import Launch
    from airflow_provider.hooks.agent import AgentHook

__all__ = ["NodeTask", "Stoppable", "run_node"]


class Stoppable(Protocol):
    """Something that runs and can be stopped."""

    def stop(self, reason: str) -> None:
        """Ask it to end; safe in a signal handler."""


class NodeTask(Protocol):
    """The task instance of one node of a gang, as far as this module uses it."""

    @property
    def context(self) -> Any:
        """The task instance's context."""

    @property
    def gang_timeout(self) -> float:
        """How long the gang has to form, in seconds from a node's first start."""

    @property
    def pool(self) -> str:
        """The pool in which the nodes take their slots."""

    @property
    def returns(self) -> bool:
        """Whether the ranks' values go to XCom."""

    def launch(self, *, locally: bool) -> Launch:
        """The checked launch. ``locally``: all nodes of the gang are on this machine."""

    def hook(self, label: str = "") -> AgentHook:
        """A hook; ``label`` is put before its log lines."""

    def on_running(self, running: Stoppable) -> None:
        """Take note of what runs: it is stopped when the task is stopped."""


def run_node(
    node: GangNode, task: NodeTask, log: logging.Logger
) -> tuple[dict[int, Any], SuccessNote]:
    """Run ``node``. Returns what each rank returned, by rank, and a note for its siblings. There
    are no ranks if the job did not need this node.

    :raises AirflowFailException: the gang cannot form any more, or ``gang_timeout`` is over.
    :raises AirflowRescheduleException: too few other nodes run; Airflow starts this one again
        later.
    :raises ResultError: the job has succeeded with an earlier try of this node, whose values are
        gone.
    :raises LaunchError: see ``AgentHook.run``.
    """
    ti = task.context["ti"]
    if is_dag_test():
        return _run_dag_test(node, task, ti, log)
    match _first_look(node, ti, log):
        case GangLost(why) if task.returns:
            raise ResultError(why)
        case GangDone(why) | GangLost(why):
            log.info("%s: %s ends as a success, with no ranks", why, node.name)
            return {}, node.note((), 0)
        case GangHopeless() as hopeless:
            raise hopeless_exception(hopeless)
        case GangOpen():
            pass
    hook = task.hook()
    task.on_running(hook)
    results = _launch(node, task, hook, log)
    if not results:
        log.info("the job did not need %s, which ends as a success, with no ranks", node.name)
    return results, node.note(tuple(results), hook.world_size if results else 0)


def _first_look(
    node: GangNode, ti: Any, log: logging.Logger
) -> GangOpen | GangDone | GangLost | GangHopeless:
    """Whether the node is needed; it is if Airflow does not say."""
    try:
        return outlook(node.view(ti))
    except Exception as error:  # noqa: BLE001 - the XCom backend may be the user's own
        kind = type(error).__name__
        log.warning("Airflow does not say how the other nodes are: %s: %s", kind, error)
        return GangOpen()


def _launch(node: GangNode, task: NodeTask, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
    """Launch the node. Returns what its ranks returned; none if the job did not need it. Gives the
    slot back if the job does not form because of the siblings.
    """
    launch = task.launch(locally=False)
    timeout = float(launch.config.rendezvous_options()["timeout"])
    of_slot = slot_timeout(timeout, _random_fraction())
    ti = task.context["ti"]
    if not is_served(launch.config):
        wait = SlotWait(node, task.context, log, server=None, timeout=of_slot)
    elif node.number == SERVING_NODE:
        wait = SlotWait(node, task.context, log, server=SERVING_NODE, timeout=of_slot)
        serving = ServingNode(node, ti, log)
        launch = replace(launch, meet=serving.meet, publish=serving.publish)
    else:
        sibling = SiblingNode(
            node,
            ti,
            log,
            returns=task.returns,
            timeout=of_slot,
            sleep=hook.sleep,
            stopped=lambda: hook.stopped,
            draw=_random_fraction,
        )
        wait = SlotWait(
            node, task.context, log, server=SERVING_NODE, timeout=of_slot, lost=sibling.lost
        )
        # Node 0 may be lost at any time; then this node waits for its next try. It does not give up
        # because the first launch was long ago: the wait has a deadline of its own.
        patient = replace(launch.retry, max_elapsed=float("inf"))
        launch = replace(launch, meet=sibling.meet, retry=patient)
    configs = {**launch.config.rdzv_configs, "timeout": wait.timeout.started}
    launch = replace(
        launch,
        config=replace(launch.config, rdzv_configs=configs),
        retry_is_pointless=wait.is_over,
        idle_check=wait.check,
    )
    try:
        return launch.run(hook, log)
    except NotNeededError as error:
        log.info("%s", error)
        return {}
    except LaunchError as error:
        # What the node has decided stands, however its agent ended; what Airflow asked, too.
        if wait.decided is not None or (isinstance(error, RendezvousError) and not hook.stopped):
            wait.come_again(
                error, timeout=timeout, gang_timeout=task.gang_timeout, pool=task.pool, ran=hook.ran
            )
        raise


def _run_dag_test(
    node: GangNode, task: NodeTask, ti: Any, log: logging.Logger
) -> tuple[dict[int, Any], SuccessNote]:
    run = results_of_dag_test(ti, node)
    if run is None:
        for number, state in node.states(ti).items():
            if state in {"failed", "skipped"}:
                why = (
                    f"all nodes of this gang ran in the task instance of node {number}, which is "
                    f"{state}"
                )
                raise hopeless_exception(GangHopeless(why, skipped=state == "skipped"))
        dag_test_gang = DagTestGang(node, task.hook)
        task.on_running(dag_test_gang)
        run = dag_test_gang.run(task.launch(locally=True), log)
        kept = run if task.returns else run.without_values()
        ti.xcom_push(key=DAG_TEST_RESULTS, value=kept.to_json(node.rerun_token))
    else:
        log.info("%s has run already, with all the others: these are its results", node.name)
    results = dict(run.results[node.number])
    return results, node.note(tuple(results), run.world_size)


def _random_fraction() -> float:
    return random.random()  # noqa: S311 - jitter is no secret
