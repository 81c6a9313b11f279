"""Runs one ``LaunchRequest``: checks it, builds the agent, runs it, returns the results.

``request_checks`` finds what is wrong with a request. ``build_agent`` makes the agent.
``torch_errors`` turns torch's errors into those of ``llutil.errors``. ``launch_agent`` and the
agent process of an Airflow task both call ``run``. torch is imported through the agent, after the
checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from llutil.errors import RendezvousError
from llutil.launcher.build_agent import build_agent
from llutil.launcher.request import LaunchRequest
from llutil.launcher.request_checks import check_request
from llutil.launcher.torch_errors import torch_errors_translated

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult

    from llutil.agent.base_agent import Agent
    from llutil.agent.worker_side.outcome_pipe import Returned
    from llutil.launcher.config import LaunchConfig
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["run"]


def run(request: LaunchRequest) -> dict[int, Any]:
    """Run the job on this node; see ``launch_agent`` for what it returns and raises."""
    entrypoint, direct = check_request(request)
    with ExitStack() as stack:
        agent, rendezvous = build_agent(request, entrypoint, direct, stack)
        with torch_errors_translated(rendezvous), _agent_end_recorded(agent, request.config):
            result = agent.run()
        return _results(result, agent, rendezvous, request.store_value)


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
    store_value: Callable[[bytes], Any] | None,
) -> dict[int, Any]:
    if result is None:
        # torch's agent returns None when the rendezvous told this node to leave without an error.
        raise RendezvousError(f"this node left run {rendezvous.run_id!r} before the job ended")
    if result.is_failed():
        from llutil.agent.failures.report import WorkersFailed

        assert agent.report is not None
        raise WorkersFailed(agent.report, result.failures)
    notes = result.return_values
    return {rank: _value(notes[rank], store_value) for rank in sorted(notes)}


def _value(note: Returned | None, store_value: Callable[[bytes], Any] | None) -> Any:
    """A rank's value, decoded; or what ``store_value`` returns for it. None for a script."""
    if note is None:
        return None
    if note.pickled:
        import cloudpickle

        return cloudpickle.loads(note.content)
    if store_value is not None:
        return store_value(note.content)
    import json

    return json.loads(note.content)
