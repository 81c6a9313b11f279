"""One node of a gang, run: looked at its siblings first, then launched, or found to be not needed.

``run_node`` acts; what it decides by is in ``airflow_provider.siblings``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider.rehearsal import REHEARSED, Rehearsal, in_one_process, rehearsed
from airflow_provider.siblings import Hopeless, Late, Node, Note, Open

if TYPE_CHECKING:
    from airflow_provider.hooks.agent import AgentHook
    from airflow_provider.launch import Launch

__all__ = ["Job", "Running", "run_node"]


class Running(Protocol):
    """What is stopped if the task is."""

    def stop(self, reason: str) -> None:
        """Ask it to end; safe in a signal handler."""


class Job(Protocol):
    """What a task instance has to run, as a node of a gang sees it."""

    @property
    def returns(self) -> bool:
        """Whether anybody wants what the ranks return."""

    def launch(self, *, locally: bool) -> Launch:
        """The launch; ``locally``: all nodes are on this machine."""

    def hook(self, label: str = "") -> AgentHook:
        """A hook, called ``label`` in the log."""

    def hold(self, running: Running) -> None:
        """``running`` is to be stopped if the task is."""


def run_node(node: Node, job: Job, ti: Any, log: logging.Logger) -> tuple[dict[int, Any], Note]:
    """What each rank of ``node`` returned, none if the job did not need it, and what it has to tell its siblings.

    :raises AirflowFailException: there is nothing that it could wait for.
    :raises LaunchError: see ``AgentHook.run``.
    """
    if in_one_process():
        return _rehearse(node, job, ti, log)
    match node.prospect(ti):
        case Late(why):
            log.info("%s: %s ends as a success, with no ranks", why, node.name)
            return {}, node.note((), 0)
        case Hopeless(why):
            raise AirflowFailException(why)
        case Open():
            pass
    hook = job.hook()
    job.hold(hook)
    results = job.launch(locally=False).run(hook, log)
    if not results:
        log.info("the job did not need %s, which ends as a success, with no ranks", node.name)
    return results, node.note(tuple(results), hook.world_size if results else 0)


def _rehearse(node: Node, job: Job, ti: Any, log: logging.Logger) -> tuple[dict[int, Any], Note]:
    run = rehearsed(ti, node)
    if run is None:
        failed = [number for number, state in node.states(ti).items() if state == "failed"]
        if failed:
            raise AirflowFailException(
                f"all nodes of this gang ran in the task instance of node {failed[0]}, and failed there"
            )
        rehearsal = Rehearsal(node, job.hook)
        job.hold(rehearsal)
        run = rehearsal.run(job.launch(locally=True), log)
        kept = run if job.returns else run.without_values()
        ti.xcom_push(key=REHEARSED, value=kept.to_json(node.life))
    else:
        log.info("%s has run already, with all the others: these are its results", node.name)
    results = dict(run.results[node.number])
    return results, node.note(tuple(results), run.world_size)
