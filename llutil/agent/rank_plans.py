"""How each rank of a round is started, by what its job and its round say.

Nothing here acts. It may import the values of its room and of ``workers``.
"""

from __future__ import annotations

from pathlib import Path

from torch.distributed.elastic.agent.server.api import Worker, WorkerGroup

from llutil.agent.agent_job import AgentJob
from llutil.agent.workers.rank_environment import line_prefix, rank_environment
from llutil.agent.workers.rank_plan import RankPlan
from llutil.agent.workers.standard_input import standard_input
from llutil.checkpoints.place import ROUND, WORKING_DIRECTORY, working_directory
from llutil.entrypoint import Command, FunctionName, PickledCall

__all__ = ["rank_plan"]


def rank_plan(
    job: AgentJob,
    group: WorkerGroup,
    worker: Worker,
    *,
    start: int,
    restarts: int,
    round_name: str,
) -> tuple[RankPlan, Path]:
    """The plan of ``worker``, and the path of its error file. ``start`` is how often this agent has
    started workers before; ``restarts`` are the job's.
    """
    spec = group.spec
    folder = job.logs.attempt(start, worker.local_rank)
    stdout, stderr = job.logs.routes(
        folder, worker.local_rank, worker.global_rank, worker.world_size
    )
    error_file = folder / "error.json"
    entrypoint = job.order.entrypoint
    plan = RankPlan(
        rank=worker.global_rank,
        local_rank=worker.local_rank,
        prefix=line_prefix(job.line_prefix, spec.role, worker.global_rank, worker.local_rank),
        env=rank_environment(
            group,
            worker,
            restarts=restarts,
            error_file=error_file,
            events=job.events.path,
            mark=job.mark,
            signals=job.signals,
            timer_file=job.timer_file,
            checkpoints={
                ROUND: round_name,
                WORKING_DIRECTORY: working_directory(),
                **job.checkpoints,
                **job.chaos,
            },
            cpus=job.cpus[worker.local_rank] if job.cpus else (),
        ),
        stdin=standard_input(spec.local_world_size),
        stdout=stdout,
        stderr=stderr,
        returns=isinstance(entrypoint, PickledCall | FunctionName),
        signal_session=isinstance(entrypoint, Command),
        exit_timeout=job.exit_timeout,
    )
    return plan, error_file
