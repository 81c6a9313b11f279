"""``LaunchConfig``: how a job is launched, as a value.

A caller or the operator makes it, and it goes as it is to whoever runs the job. It is checked by
``llutil.launcher.config_checks`` before anything runs, and never changed. This module may import
nothing but the standard library, ``llutil.backends`` and ``llutil.std``: a DAG that is parsed
imports it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from llutil.backends.table import BACKENDS, DEFAULT
from llutil.std import Std, StdOption
from llutil.time_budgets import DEFAULT_GRACE_PERIOD

__all__ = ["LaunchConfig"]

if TYPE_CHECKING:
    _Folder = str | os.PathLike[str]
else:
    # What msgspec sends and reads by these annotations is text.
    _Folder = str


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """How a job is launched. The first sixteen fields may be given by position.

    :param min_nodes: Nodes that must be there before workers start.
    :param max_nodes: Nodes that may take part.
    :param nproc_per_node: Workers of each node: a number, or "cpu", "gpu" or "auto" to count them
        on the node.
    :param run_id: Names the job; every node of it gives the same. If empty: ``LLUTIL_RUN_ID``, else
        derived from Airflow's variables of a running task, else generated.
    :param role: The workers' role, for torch's environment, metrics and log prefixes.
    :param rdzv_endpoint: ``host:port`` (etcd: several, with commas) that the nodes meet at. If
        empty, and the job is one node: a rendezvous inside the agent, whatever the backend.
    :param rdzv_backend: "etcd" (v3 API), "zeus-adapter" (ZooKeeper), or torch's "c10d" and
        "static".
    :param rdzv_configs: The backend's options; unknown ones are refused by name.
    :param rdzv_timeout: Deprecated: if set, becomes ``rdzv_configs["timeout"]`` (seconds).
    :param max_restarts: How often failed workers are started again before the job fails.
    :param monitor_interval: Seconds between two looks for an event that was missed. What happens
        wakes the agent at once, so there is no need to lower it; torch's own backends are asked
        about new nodes once a period.
    :param start_method: "spawn", "fork" or "forkserver".
    :param log_dir: Base folder of log files; None for a temporary one, which is not removed.
    :param redirects: Streams that go into files instead of the console: a ``Std``, or a dict of
        local rank to ``Std``.
    :param tee: Streams that go into files and to the console.
    :param metrics_cfg: Who takes the metrics of a group: a dict of the group's name
        ("torchelastic", "llutil"; see ``llutil.agent.metrics`` for what is in them) to "null",
        "console", or the "module:Class" of a handler.
    :param local_addr: This node's address for the others; None to find it out.
    :param shutdown_timeout: The grace period: seconds that workers get between being asked to stop
        and being killed. The name is torch's.
    :param event_log_handler: Name of the handler of torch elastic's events.
    :param rerun_token: With etcd and zeus-adapter: what this launch and the others of the same run
        have in common, and a deliberate rerun has not. A node that comes after the job succeeded
        under its own token ends at once with an empty result; under another token, or an empty one,
        it opens the next generation.
    :param node_index: With etcd and zeus-adapter: this node's preferred place in the order of
        ranks, from 0.
    :param node_label: What people call this node, in records and error texts.
    :param local_ranks_filter: Local ranks whose output reaches the console; None or empty for all.
        It takes nothing from log files.
    :param exit_timeout: Seconds that a rank's process may take to end after its function returned.
        It ends as a Python program does: threads, executors and child processes finish first. A
        rank that takes longer is killed, and has failed.
    """

    min_nodes: int
    max_nodes: int
    nproc_per_node: int | str
    run_id: str = ""
    role: str = "default_role"
    rdzv_endpoint: str = ""
    rdzv_backend: str = DEFAULT.name
    rdzv_configs: Mapping[str, Any] = field(default_factory=dict)
    rdzv_timeout: float = -1
    max_restarts: int = 3
    monitor_interval: float = 30
    start_method: str = "spawn"
    log_dir: _Folder | None = None
    redirects: StdOption = Std.NONE
    tee: StdOption = Std.NONE
    metrics_cfg: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    local_addr: str | None = None
    shutdown_timeout: float = DEFAULT_GRACE_PERIOD
    event_log_handler: str = "null"
    rerun_token: str = ""
    node_index: int | None = None
    node_label: str = ""
    local_ranks_filter: Collection[int] | None = None
    exit_timeout: float = 300

    def __post_init__(self) -> None:
        if self.rdzv_timeout != -1:
            warnings.warn(
                "rdzv_timeout is deprecated: give rdzv_configs={'timeout': seconds}",
                DeprecationWarning,
                stacklevel=3,
            )

    def rendezvous_options(self) -> dict[str, Any]:
        """The backend's options: what ``rdzv_configs`` means, and the defaults of the others.

        :raises ConfigError: a key is unknown, or a value not of its kind; all problems are listed.
        """
        given = dict(self.rdzv_configs)
        if self.rdzv_timeout != -1:
            given["timeout"] = self.rdzv_timeout
        return BACKENDS[self.rdzv_backend].values(given, "rdzv_configs")
