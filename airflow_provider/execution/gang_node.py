"""One node of a gang, run: looked at its siblings first, then launched, or found to be not needed.

``run_node`` acts; what it decides by is in ``airflow_provider.gang.node``.
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

from airflow_provider.execution.dag_test import REHEARSED, DagTestGang, in_one_process, rehearsed
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

__all__ = ["NodeJob", "Stoppable", "run_node"]


class Stoppable(Protocol):
    """What is stopped if the task is."""

    def stop(self, reason: str) -> None:
        """Ask it to end; safe in a signal handler."""


class NodeJob(Protocol):
    """What a task instance has to run, as a node of a gang sees it."""

    @property
    def context(self) -> Any:
        """The task instance's context."""

    @property
    def gang_timeout(self) -> float:
        """Seconds that the gang has to form, from a node's first start."""

    @property
    def pool(self) -> str:
        """The pool that the nodes take their slots from."""

    @property
    def returns(self) -> bool:
        """Whether anybody wants what the ranks return."""

    def launch(self, *, locally: bool) -> Launch:
        """The launch; ``locally``: all nodes are on this machine."""

    def hook(self, label: str = "") -> AgentHook:
        """A hook, called ``label`` in the log."""

    def hold(self, running: Stoppable) -> None:
        """``running`` is to be stopped if the task is."""


def run_node(
    node: GangNode, job: NodeJob, log: logging.Logger
) -> tuple[dict[int, Any], SuccessNote]:
    """What each rank of ``node`` returned, none if the job did not need it, and what it has to tell
    its siblings.

    :raises AirflowFailException: there is nothing that it could wait for, or the gang's own time is
        over.
    :raises AirflowRescheduleException: too few of the others are there, and it comes back another
        time.
    :raises LaunchError: see ``AgentHook.run``.
    """
    ti = job.context["ti"]
    if in_one_process():
        return _rehearse(node, job, ti, log)
    match node.outlook(ti):
        case GangDone(why):
            log.info("%s: %s ends as a success, with no ranks", why, node.name)
            return {}, node.note((), 0)
        case GangHopeless(why):
            raise AirflowFailException(why)
        case GangOpen():
            pass
    hook = job.hook()
    job.hold(hook)
    results = _launched(node, job, hook, log)
    if not results:
        log.info("the job did not need %s, which ends as a success, with no ranks", node.name)
    return results, node.note(tuple(results), hook.world_size if results else 0)


def _launched(node: GangNode, job: NodeJob, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
    """What the ranks returned. Gives the slot back if the job does not form because siblings have
    none.
    """
    ti = job.context["ti"]
    started = time.monotonic()
    launch = job.launch(locally=False)
    host = HOST if is_hosted(launch.config) else None

    vain: GangHopeless | None = None

    def away() -> dict[int, str | None] | None:
        return absent_nodes(node.number, node.min_nodes, node.states(ti), host=host)

    def in_vain() -> str | None:
        nonlocal vain
        try:
            vain = node.waits_in_vain(ti)
        except AirflowRuntimeError as error:  # one look among many
            log.warning("Airflow does not say how the other nodes are: %s", error)
        return vain.why if vain else None

    timeout = slot_timeout(launch.config.rendezvous_options()["timeout"], _draw())
    configs = {**launch.config.rdzv_configs, "timeout": timeout}
    launch = replace(
        launch,
        config=replace(launch.config, rdzv_configs=configs),
        pointless=lambda: away() is not None,
        in_vain=in_vain,
    )
    if host is not None:
        launch = _by_themselves(launch, node, ti, hook, log)
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
            began=ti.get_first_reschedule_date(job.context) or ti.start_date or now,
            run_after=job.context["dag_run"].run_after,
            timeout=job.gang_timeout,
            # It may have run for long before the others went: no reason to stay away for as long.
            held=min(time.monotonic() - started, timeout),
            draw=_draw(),
        )
        why = describe_absent(absent, node.nodes, node.min_nodes, job.pool)
        match found:
            case RescheduleAt(when):
                log.warning("%s; %s gives its slot back until %s", why, node.name, when)
                raise AirflowRescheduleException(when) from error
            case TimeIsUp():
                # For good: another try would have as long again, and so would the one after that.
                raise AirflowFailException(
                    f"{why}, and the {job.gang_timeout:g} s of gang_timeout are over. {error}"
                ) from error


def _by_themselves(
    launch: Launch, node: GangNode, ti: Any, hook: AgentHook, log: logging.Logger
) -> Launch:
    """``launch``, whose nodes meet without a store beside them."""
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
        draw=_draw,
    )
    # It may lose node 0 at any time and wait for its next try. That others are away meanwhile, or
    # how long ago the first launch was, is no reason to give up: the wait has a deadline of its
    # own.
    patient = replace(launch.retry, max_elapsed=float("inf"))
    return replace(launch, meet=guest.meet, retry=patient, pointless=lambda: False)


def _rehearse(
    node: GangNode, job: NodeJob, ti: Any, log: logging.Logger
) -> tuple[dict[int, Any], SuccessNote]:
    run = rehearsed(ti, node)
    if run is None:
        failed = [number for number, state in node.states(ti).items() if state == "failed"]
        if failed:
            raise AirflowFailException(
                f"all nodes of this gang ran in the task instance of node {failed[0]}, and failed "
                "there"
            )
        rehearsal = DagTestGang(node, job.hook)
        job.hold(rehearsal)
        run = rehearsal.run(job.launch(locally=True), log)
        kept = run if job.returns else run.without_values()
        ti.xcom_push(key=REHEARSED, value=kept.to_json(node.rerun_token))
    else:
        log.info("%s has run already, with all the others: these are its results", node.name)
    results = dict(run.results[node.number])
    return results, node.note(tuple(results), run.world_size)


def _draw() -> float:
    return random.random()  # noqa: S311 - jitter is no secret
