"""``AgentJob``: what an agent runs, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llutil.agent.hang.hang_watch import HangTimeout
from llutil.agent.output.log_files import LogFolder
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.events.events import Events
from llutil.serialization.shared_objects import SharedObjects

__all__ = ["AgentJob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJob:
    """What an agent runs, beyond torch's ``WorkerSpec``.

    ``name`` names the entrypoint in texts. ``mark`` is in the environment of every process of the
    job. ``grace_period`` is how many seconds workers get between being asked to stop and being
    killed; ``restart_grace`` is the same where their round has failed. ``exit_timeout`` is how many
    seconds a rank's process may take to end after its function returned. ``hang_timeout`` is what
    ``LaunchConfig`` has. ``checkpoints`` is what ranks' environment says of the job's checkpoints;
    empty without a place for them. ``chaos`` is what it says of faults. ``save_period`` is how
    many seconds lie between two checkpoints, or None. ``line_prefix`` is the template of the prefix
    of ranks' lines, or None.
    ``signals`` are the names of the signals that end the job, with commas. ``shared`` has what
    ranks share with this process, or is None. ``cpus`` are the CPUs of each rank, by local rank;
    empty if ranks are not bound. ``timer_file`` is the pipe of torch's watchdog, or empty.
    """

    name: str
    order: WorkOrder
    mark: str
    grace_period: float
    restart_grace: float
    exit_timeout: float
    hang_timeout: HangTimeout
    checkpoints: Mapping[str, str]
    chaos: Mapping[str, str]
    save_period: float | None
    line_prefix: str | None
    signals: str
    shared: SharedObjects | None
    cpus: Sequence[Sequence[int]]
    timer_file: str
    logs: LogFolder
    events: Events
