"""Runs one ``LaunchRequest``: checks it, builds the agent, runs it, returns the results.

``request_checks`` finds what is wrong with a request. ``build_agent`` makes the agent. ``job_end``
says how it ended, and ``torch_errors`` turns torch's errors into those of ``llutil.errors``.
``launch_agent`` and the agent process of an Airflow task both call ``run``. torch is imported
through the agent, after the checks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llutil.errors import RendezvousError, ResultError
from llutil.launcher.build_agent import build_agent
from llutil.launcher.job_end import tell_end
from llutil.launcher.os_errors import os_errors_explained
from llutil.launcher.request import LaunchRequest
from llutil.launcher.request_checks import check_request
from llutil.launcher.torch_errors import torch_errors_translated
from llutil.serialization.shared_objects import SharedObjects
from llutil.system.standard_fds import open_standard_fds

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult

    from llutil.agent.base_agent import Agent
    from llutil.agent.worker_side.outcome_pipe import Refused, Returned
    from llutil.launcher.config import LaunchConfig
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["run"]

_log = logging.getLogger(__name__)


def run(request: LaunchRequest) -> dict[int, Any]:
    """Run the job on this node; see ``launch_agent`` for what it returns and raises."""
    with os_errors_explained(), ExitStack() as stack:
        open_standard_fds()
        shared = stack.enter_context(closing(SharedObjects()))
        entrypoint, direct = check_request(request, shared)
        agent, rendezvous = build_agent(request, entrypoint, direct, stack, shared)
        stack.callback(_say_where_time_went, agent, request, rendezvous.run_id)
        with torch_errors_translated(rendezvous), _agent_end_recorded(agent, request.config):
            result = agent.run()
        if result is not None and not result.is_failed():
            tell_end(agent, request, rendezvous.run_id)
        return _results(result, agent, rendezvous, request.store_value)


def _say_where_time_went(agent: Agent, request: LaunchRequest, run_id: str) -> None:
    text, account = agent.stopwatch.end(), agent.stopwatch.account
    _log.info("run %r: %s", run_id, text)
    if request.observer is not None:
        request.observer.time_spent(account.seconds, account.training_share, account.restarts, text)


@contextmanager
def _agent_end_recorded(agent: Agent, config: LaunchConfig) -> Iterator[None]:
    """Record in torch elastic's events how the agent ended, as torch's launcher does."""
    from torch.distributed.elastic import events

    try:
        yield
    except Exception:
        events.record(agent.get_event_failed(), config.event_log_handler)
        raise
    events.record(agent.get_event_succeeded(), config.event_log_handler)


def _results(
    result: RunResult | None,
    agent: Agent,
    rendezvous: RendezvousConfig,
    store_value: Callable[[bytes | bytearray], Any] | None,
) -> dict[int, Any]:
    if result is None:
        # torch's agent returns None when the rendezvous told this node to leave without an error.
        raise RendezvousError(f"this node left run {rendezvous.run_id!r} before the job ended")
    if result.is_failed():
        from llutil.agent.failures.report import WorkersFailed

        assert agent.report is not None
        raise WorkersFailed(agent.report, result.failures)
    return _values(result.return_values, Path(agent.kept_folder), store_value)


def _values(
    notes: Mapping[int, Returned | Refused | None],
    kept_folder: Path,
    store_value: Callable[[bytes | bytearray], Any] | None,
) -> dict[int, Any]:
    """The ranks' values.

    :raises ResultError: some cannot be handed on. The error has the others.
    """
    values: dict[int, Any] = {}
    refused: list[str] = []
    for rank in sorted(notes):
        try:
            values[rank] = _value(rank, notes[rank], kept_folder, store_value)
        except ResultError as error:
            refused.append(str(error))
    if refused:
        told = ResultError("\n".join(("the job has succeeded, but a result is missing:", *refused)))
        told.results = values
        raise told
    return values


def _value(
    rank: int,
    note: Returned | Refused | None,
    kept_folder: Path,
    store_value: Callable[[bytes | bytearray], Any] | None,
) -> Any:
    """A rank's value, decoded; or what ``store_value`` returns for it. None for a script."""
    import json
    import pickle

    from llutil.agent.worker_side.outcome_pipe import Refused

    if note is None:
        return None
    if isinstance(note, Refused):
        raise ResultError(note.text)
    if not note.pickled and store_value is None:
        return json.loads(note.content)
    try:
        if store_value is not None:
            return store_value(note.content)
        return pickle.loads(note.content)  # noqa: S301 - of our own rank
    except Exception as error:
        from llutil.serialization.kept_value import keep_content

        why = f"{type(error).__name__}: {error}"
        raise ResultError(
            f"rank {rank}: what it returned cannot be taken here: {why}; "
            f"{keep_content(note.content, kept_folder, rank, pickled=note.pickled)}"
        ) from error
