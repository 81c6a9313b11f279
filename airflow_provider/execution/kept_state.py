"""The state of a task that runs a job: who keeps it, and how its end is told there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from airflow_provider.execution.dag_test import is_dag_test
from airflow_provider.execution.final_exception import final_exception
from airflow_provider.execution.hidden_texts import hider
from airflow_provider.task_state.elastic_note import Ended, LaunchFacts
from airflow_provider.task_state.job_state import JobState
from airflow_provider.task_state.note_size import LIMIT
from llutil.checkpoints.job_environment import checkpoint_environment
from llutil.checkpoints.place import FOLDER
from llutil.errors import LaunchError

if TYPE_CHECKING:
    from airflow_provider.gang.node import GangNode
    from llutil.launcher.config import LaunchConfig

__all__ = ["job_state", "outcome_told", "state_without_launch"]


def job_state(
    context: Mapping[str, Any], config: LaunchConfig, log: logging.Logger
) -> JobState | None:
    """Keeps the state of the task of ``context``; None if that is not possible."""
    folder = checkpoint_environment(config, config.run_id).get(FOLDER, "")
    facts = LaunchFacts(
        try_number=context["ti"].try_number,
        run_id=config.run_id,
        backend=config.rdzv_backend,
        label=config.node_label,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        folder=folder,
        resume=config.resume,
    )
    return _kept(context, facts, config, log)


def state_without_launch(
    context: Mapping[str, Any], node: GangNode | None, log: logging.Logger
) -> JobState | None:
    """Keeps the state of a task that ends before it has a launch, since its configuration is
    refused or the gang of ``node`` does not need it; None if that is not possible.
    """
    facts = LaunchFacts(try_number=context["ti"].try_number, folder=None)
    if node is not None:
        label, least, most = node.name, node.min_nodes, node.nodes
        facts = replace(facts, label=label, min_nodes=least, max_nodes=most)
    return _kept(context, facts, None, log)


def _kept(
    context: Mapping[str, Any],
    facts: LaunchFacts,
    config: LaunchConfig | None,
    log: logging.Logger,
) -> JobState | None:
    """Under ``dag.test()`` there is no supervisor who would serve another thread (Airflow 3.3)."""
    if is_dag_test():
        return None
    store = context.get("task_state_store")
    if store is None:
        log.info(
            "this Airflow has no task_state_store, which 3.3 has: the job cannot be steered by the "
            "task's state"
        )
        return None
    return JobState(store, log, facts, hide=hider(config), limit=_limit())


def _limit() -> int:
    """How many bytes of JSON Airflow takes for one value."""
    from airflow.sdk.configuration import conf

    allowed = conf.getint("state_store", "max_value_storage_bytes", fallback=0)
    return min(LIMIT, allowed) if allowed > 0 else LIMIT


@contextmanager
def outcome_told(
    states: list[JobState], without_launch: Callable[[], JobState | None]
) -> Iterator[None]:
    """Around a try: tell its end to the ``states`` that were made meanwhile, or to the state
    ``without_launch`` if there was none.
    """
    try:
        yield
    except BaseException as error:
        _tell(_ended(error), states, without_launch)
        raise
    _tell(Ended(outcome="succeeded", succeeded=True), states, without_launch)


def _tell(
    ended: Ended, states: list[JobState], without_launch: Callable[[], JobState | None]
) -> None:
    made = None if states else without_launch()
    for state in states if made is None else [made]:
        state.close(ended)


def _ended(error: BaseException) -> Ended:
    """How a try ended that raised ``error``."""
    raised = (isinstance(error, LaunchError) and final_exception(error)) or error
    if isinstance(raised, AirflowRescheduleException):
        return Ended(outcome="waits for its siblings, without a slot", goes_on=True)
    if isinstance(raised, AirflowSkipException):
        return Ended(outcome="skipped")
    failure = error if isinstance(error, LaunchError) else error.__cause__
    first, _, _ = str(error).strip().partition("\n")
    return Ended(
        outcome=f"failed: {first or type(error).__name__}",
        failure=failure.job_failure if isinstance(failure, LaunchError) else None,
        report=str(error),
    )
