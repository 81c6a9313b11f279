"""From a request to an agent and back: checks, the parts of an agent, one run, results.

``checked`` finds out what is wrong with a request, ``assembly`` makes the agent, and
``translating`` its errors ours. The operator's agent process runs jobs through the same function,
with a host of its own. Imports torch through the agent, once the configuration was found to be
sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from llutil.errors import RendezvousError
from llutil.launcher.build_agent import assemble
from llutil.launcher.request import LaunchRequest
from llutil.launcher.request_checks import checked
from llutil.launcher.torch_errors import translated

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult

    from llutil.agent.base_agent import Agent
    from llutil.agent.worker_side.outcome_pipe import Returned
    from llutil.launcher.config import LaunchConfig
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["run"]


def run(request: LaunchRequest) -> dict[int, Any]:
    """Run the job on this node; see ``launch_agent`` for what comes back and what is raised."""
    entrypoint, direct = checked(request)
    with ExitStack() as stack:
        agent, rendezvous = assemble(request, entrypoint, direct, stack)
        with translated(rendezvous), _recorded(agent, request.config):
            result = agent.run()
        return _results(result, agent, rendezvous, request.keep)


@contextmanager
def _recorded(agent: Agent, config: LaunchConfig) -> Iterator[None]:
    """Record how the agent itself ended in torch elastic's events, as torch's launcher does."""
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
    keep: Callable[[bytes], Any] | None,
) -> dict[int, Any]:
    if result is None:
        # torch's agent returns nothing when a rendezvous told it to leave in peace.
        raise RendezvousError(f"this node left run {rendezvous.run_id!r} before the job ended")
    if result.is_failed():
        from llutil.agent.failures.report import WorkersFailed

        assert agent.report is not None
        raise WorkersFailed(agent.report, result.failures)
    notes = result.return_values
    return {rank: _value(notes[rank], keep) for rank in sorted(notes)}


def _value(note: Returned | None, keep: Callable[[bytes], Any] | None) -> Any:
    """A rank's value: what was pickled, or what is plain JSON already; None for a script."""
    if note is None:
        return None
    if note.pickled:
        import cloudpickle

        return cloudpickle.loads(note.content)
    if keep is not None:
        return keep(note.content)
    import json

    return json.loads(note.content)
