"""What a rank finds in its environment, and the prefix of its lines.

This module may import torch's values of a worker group, for annotations alone, and from this
package its own room, ``llutil.agent.worker_side.cpu_affinity``, ``llutil.chaos``,
``llutil.checkpoints.place``, ``llutil.errors``, ``llutil.events`` and ``llutil.system``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import TYPE_CHECKING

from llutil.agent.worker_side.cpu_affinity import CPUS
from llutil.agent.workers.run_tags import run_tags
from llutil.chaos.variable import CHAOS
from llutil.checkpoints.place import OF_THE_AGENT
from llutil.errors import ConfigError
from llutil.events.events import ENVIRONMENT, SLOT_NUMBER
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.terminal import TERMINAL, terminal_path

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import Worker, WorkerGroup

__all__ = ["check_visible_devices", "line_prefix", "rank_environment"]

_PREFIX = "[${role_name}${local_rank}]:"
"""torch's default for the prefix of a rank's line on the console (torch 2.13)."""

_PREFIX_TEMPLATE = "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"
"""torchrun's variable for another prefix, which may hold ``${role_name}``, ``${rank}``,
``${local_rank}`` and, since torch 2.14, ``${hostname}``.
"""


_VISIBLE = "CUDA_VISIBLE_DEVICES"


def line_prefix(template: str | None, role: str, rank: int, local_rank: int) -> str:
    """The prefix of a rank's lines on the console. As in torch, an empty ``template`` is none."""
    template = template or os.environ.get(_PREFIX_TEMPLATE) or _PREFIX
    return Template(template).safe_substitute(
        role_name=role, rank=rank, local_rank=local_rank, hostname=socket.gethostname()
    )


def check_visible_devices(nproc: int) -> None:
    """Check that CUDA_VISIBLE_DEVICES has a device for each of ``nproc`` ranks, as they need with
    ``virtual_local_rank``.

    :raises ConfigError: it has not.
    """
    given = os.environ.get(_VISIBLE)
    count = nproc if given is None else len(given.split(","))
    if count < nproc:
        raise ConfigError(
            f"virtual_local_rank gives each of {nproc} workers a device of its own, but "
            f"{_VISIBLE}={given} has {count}; lower nproc_per_node, or show this node more devices"
        )


def _device_environment(local_rank: int, *, virtual: bool) -> dict[str, str]:
    """The number of a rank on its node and the devices that it sees, as torch 2.13 has both.

    torch's ``_set_local_rank_env`` knows CUDA's variable alone, which ROCm understands too.
    """
    if not virtual:
        return {"LOCAL_RANK": str(local_rank)}
    given = os.environ.get(_VISIBLE)
    device = str(local_rank) if given is None else given.split(",")[local_rank].strip()
    return {"LOCAL_RANK": "0", _VISIBLE: device}


def rank_environment(
    group: WorkerGroup,
    worker: Worker,
    *,
    restarts: int,
    error_file: Path,
    events: str,
    mark: str,
    signals: str,
    cpus: Sequence[int] = (),
    timer_file: str = "",
    checkpoints: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The environment of the rank ``worker``: the agent's own, the variables that torch 2.13's
    local agent sets, and ours.

    :param restarts: how often the job was started again.
    :param error_file: where the rank writes what it raised, as torch's ``record`` does.
    :param events: the path of the event page.
    :param mark: the mark of the job's processes.
    :param checkpoints: the round's name, where its checkpoints lie, and faults that strike it.
    :param cpus: the CPUs that the rank is bound to; none for all.
    :param timer_file: the pipe over which ranks set timers, if there is one.
    :param signals: the names of the signals that the job handles, with commas.
    """
    spec = group.spec
    # A launch inside a rank of another job is a job of its own, with checkpoints of its own.
    others = {*OF_THE_AGENT, CHAOS}
    env = {name: value for name, value in os.environ.items() if name not in others}
    if spec.local_world_size > 1:
        # As torchrun does. Else each rank would start a thread for every core of the host.
        env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    env |= {
        "RANK": str(worker.global_rank),
        "GROUP_RANK": str(group.group_rank),
        "ROLE_RANK": str(worker.role_rank),
        "ROLE_NAME": spec.role,
        "LOCAL_WORLD_SIZE": str(spec.local_world_size),
        "WORLD_SIZE": str(worker.world_size),
        "GROUP_WORLD_SIZE": str(group.group_world_size),
        "ROLE_WORLD_SIZE": str(worker.role_world_size),
        "MASTER_ADDR": str(group.master_addr),
        "MASTER_PORT": str(group.master_port),
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(spec.max_restarts),
        "TORCHELASTIC_RUN_ID": spec.rdzv_handler.get_run_id(),
        "TORCHELASTIC_USE_AGENT_STORE": str(spec.rdzv_handler.use_agent_store),
        "TORCHELASTIC_ERROR_FILE": str(error_file),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": signals,
        ENVIRONMENT: events,
        SLOT_NUMBER: str(worker.local_rank),
        MARK_VARIABLE: mark,
        **checkpoints,
    }
    env |= run_tags(
        env,
        run_id=env["TORCHELASTIC_RUN_ID"],
        restarts=restarts,
        world_size=worker.world_size,
    )
    if terminal := terminal_path():  # else the agent may have been given one
        env[TERMINAL] = terminal
    if timer_file:
        env["TORCHELASTIC_TIMER_FILE"] = timer_file
    env.pop(CPUS, None)
    if cpus:
        env[CPUS] = ",".join(map(str, cpus))
    return env | _device_environment(worker.local_rank, virtual=spec.virtual_local_rank)
