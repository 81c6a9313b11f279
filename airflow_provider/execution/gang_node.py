"""Runs one node of a gang: it looks at the sibling task instances first, then launches, or ends
because the job does not need it.

``run_node`` acts; the decisions are in ``airflow_provider.gang``.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowRuntimeError,
)

from airflow_provider.execution.dag_test import (
    DAG_TEST_RESULTS,
    DagTestGang,
    is_dag_test,
    results_of_dag_test,
)
from airflow_provider.gang.hosted_store import HOST, Guest, Host, NotNeededError, is_hosted
from airflow_provider.gang.node import GangDone, GangHopeless, GangNode, GangOpen, SuccessNote
from airflow_provider.gang.reschedule import (
    RescheduleAt,
    TimeIsUp,
    absent_nodes,
    describe_absent,
    next_attempt,
    slot_timeout,
)
from llutil.errors import RendezvousError, StoppedError

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
    :raises LaunchError: see ``AgentHook.run``.
    """
    ti = task.context["ti"]
    if is_dag_test():
        return _run_dag_test(node, task, ti, log)
    match node.outlook(ti):
        case GangDone(why):
            log.info("%s: %s ends as a success, with no ranks", why, node.name)
            return {}, node.note((), 0)
        case GangHopeless(why):
            raise AirflowFailException(why)
        case GangOpen():
            pass
    hook = task.hook()
    task.on_running(hook)
    results = _launch(node, task, hook, log)
    if not results:
        log.info("the job did not need %s, which ends as a success, with no ranks", node.name)
    return results, node.note(tuple(results), hook.world_size if results else 0)


def _launch(node: GangNode, task: NodeTask, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
    """Launch the node. Returns what its ranks returned; none if the job did not need it. Gives the
    slot back if the job does not form because siblings have no slot.
    """
    ti = task.context["ti"]
    started = time.monotonic()
    launch = task.launch(locally=False)
    host = HOST if is_hosted(launch.config) else None

    vain: GangHopeless | None = None

    def away() -> dict[int, str | None] | None:
        return absent_nodes(node.number, node.min_nodes, node.states(ti), host=host)

    def in_vain() -> str | None:
        nonlocal vain
        try:
            vain = node.waits_in_vain(ti)
        except AirflowRuntimeError as error:  # it is asked again soon
            log.warning("the states of the other nodes cannot be read from Airflow: %s", error)
        return vain.why if vain else None

    timeout = slot_timeout(launch.config.rendezvous_options()["timeout"], _random_fraction())
    configs = {**launch.config.rdzv_configs, "timeout": timeout}
    launch = replace(
        launch,
        config=replace(launch.config, rdzv_configs=configs),
        retry_is_pointless=lambda: away() is not None,
        in_vain=in_vain,
    )
    if host is not None:
        launch = _without_store(launch, node, ti, hook, log)
    try:
        return launch.run(hook, log)
    except NotNeededError as error:
        log.info("%s", error)
        return {}
    except StoppedError as error:
        if vain is None:
            raise
        raise AirflowFailException(vain.why) from error
    except RendezvousError as error:
        absent = None if hook.stopped else away()
        if absent is None:
            raise
        now = dt.datetime.now(dt.UTC)
        found = next_attempt(
            now=now,
            began=ti.get_first_reschedule_date(task.context) or ti.start_date or now,
            run_after=task.context["dag_run"].run_after,
            timeout=task.gang_timeout,
            # The node may have run for long before the others left. It need not stay away so long.
            held=min(time.monotonic() - started, timeout),
            draw=_random_fraction(),
        )
        why = describe_absent(absent, node.nodes, node.min_nodes, task.pool)
        match found:
            case RescheduleAt(when):
                log.warning("%s; %s gives its slot back until %s", why, node.name, when)
                raise AirflowRescheduleException(when) from error
            case TimeIsUp():
                # Without retries: each retry would wait for the whole ``gang_timeout`` again.
                raise AirflowFailException(
                    f"{why}, and the {task.gang_timeout:g} s of gang_timeout are over. {error}"
                ) from error


def _without_store(
    launch: Launch, node: GangNode, ti: Any, hook: AgentHook, log: logging.Logger
) -> Launch:
    """``launch`` for nodes that meet at node 0, without a separate store."""
    if node.number == HOST:
        host = Host(node, ti, log)
        return replace(launch, meet=host.meet, publish=host.publish)
    guest = Guest(
        node,
        ti,
        log,
        timeout=launch.config.rendezvous_options()["timeout"],
        sleep=hook.sleep,
        stopped=lambda: hook.stopped,
        draw=_random_fraction,
    )
    # Node 0 may be lost at any time; then this node waits for its next try. It does not give up
    # because others are away meanwhile, or because the first launch was long ago: the wait has a
    # deadline of its own.
    patient = replace(launch.retry, max_elapsed=float("inf"))
    return replace(launch, meet=guest.meet, retry=patient, retry_is_pointless=lambda: False)


def _run_dag_test(
    node: GangNode, task: NodeTask, ti: Any, log: logging.Logger
) -> tuple[dict[int, Any], SuccessNote]:
    run = results_of_dag_test(ti, node)
    if run is None:
        failed = [number for number, state in node.states(ti).items() if state == "failed"]
        if failed:
            raise AirflowFailException(
                f"all nodes of this gang ran in the task instance of node {failed[0]}, and failed "
                "there"
            )
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
