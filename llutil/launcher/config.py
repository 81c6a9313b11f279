"""``LaunchConfig``: how a job is launched, as a value.

A caller or the operator makes it, and the agent gets it unchanged. Before anything runs, it is
checked by ``llutil.launcher.config_checks``. This module may import only the standard library,
``llutil.backends``, ``llutil.chaos``, ``llutil.errors``, ``llutil.launcher.numa_options``,
``llutil.secret``, ``llutil.std``, ``llutil.system.signal_names`` and ``llutil.time_budgets``:
parsing a DAG imports it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from llutil.backends.table import BACKENDS, DEFAULT, conceal_options
from llutil.chaos.fault_texts import texts_of
from llutil.errors import ConfigError, Problem
from llutil.launcher.numa_options import NumaOptions, numa_options_of
from llutil.secret import concealed
from llutil.std import FOLDED, Std, StdOption
from llutil.system.signal_names import DEFAULT_SIGNALS
from llutil.time_budgets import DEFAULT_GRACE_PERIOD, DEFAULT_RESTART_GRACE

__all__ = ["LaunchConfig"]

if TYPE_CHECKING:
    from llutil.chaos.faults import Fault

    _Folder = str | os.PathLike[str]
    _Chaos = Collection[Fault | str] | Fault | str
else:
    # msgspec encodes and decodes by these annotations, and knows a path only as text.
    _Folder = str
    _Chaos = tuple[str, ...]

_SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds: the default of ``LaunchConfig``'s ``shutdown_timeout``. The operator has its own."""


def _default_shutdown_timeout() -> float:
    """torch's default (2.13): its variable, else 30 seconds."""
    text = os.environ.get(_SHUTDOWN_TIMEOUT)
    if text is None:
        return DEFAULT_GRACE_PERIOD
    try:
        return float(text)
    except ValueError:
        problem = f"is {text!r} in the environment; wanted a number of seconds"
        raise ConfigError([Problem(_SHUTDOWN_TIMEOUT, problem)]) from None


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """How a job is launched. The first sixteen fields may be given by position.

    :param min_nodes: How many nodes must have joined before workers start.
    :param max_nodes: How many nodes may take part.
    :param nproc_per_node: Workers of each node: a number, or "cpu", "gpu", "xpu", "auto" or the
        name of an accelerator that a plugin has given torch ("npu"), to count them on the node.
    :param run_id: Names the job; every node of it gives the same. If empty: ``LLUTIL_RUN_ID``, else
        derived from Airflow's variables of a running task, else generated.
    :param role: The workers' role, for torch's environment, metrics and log prefixes.
    :param rdzv_endpoint: ``host:port`` of the rendezvous backend (etcd and ZooKeeper: several, with
        commas). If it is empty, the job must be one node, and its rendezvous is inside the agent.
    :param rdzv_backend: "etcd" (v3 API), "zeus-adapter" (ZooKeeper), "served" (by one of the
        nodes), or torch's "c10d" and "static".
    :param rdzv_configs: The backend's options; unknown ones are refused by name. ``repr`` does not
        show a password.
    :param rdzv_timeout: Deprecated: if set, becomes ``rdzv_configs["timeout"]`` (seconds).
    :param max_restarts: How often failed workers are started again before the job fails.
    :param monitor_interval: Seconds between two checks for an event that the agent missed. Events
        wake the agent at once, so there is no need to lower it. With torch's own backends the agent
        also asks for new nodes once an interval.
    :param start_method: "spawn", "fork" or "forkserver".
    :param log_dir: Base folder of log files; None for a temporary one, which is not removed.
    :param redirects: Streams that go into files instead of the console: a ``Std``, or a dict of
        local rank to ``Std``.
    :param tee: Streams that go into files and to the console.
    :param metrics_cfg: The handler of each group of metrics: a dict of the group's name
        ("torchelastic", "llutil"; see ``llutil.agent.metrics`` for what is in them) to "null",
        "console", or the "module:Class" of a handler.
    :param local_addr: The address at which other nodes reach this one; None to find it out.
    :param shutdown_timeout: The grace period: seconds that workers get between being asked to stop
        and being killed. The name is torch's. If it is left out: ``TORCH_ELASTIC_SHUTDOWN_TIMEOUT``
        in the environment, else 30.
    :param event_log_handler: Name of the handler of torch elastic's events.
    :param rerun_token: Not on torch's backends: a text that all launches of one run share, and that
        is another one for a deliberate rerun. A node that comes after the job has succeeded under
        the same token ends at once with an empty result. With another token, or an empty one, it
        opens the next generation.
    :param node_index: Not on torch's backends: this node's preferred position in the order of
        ranks, from 0.
    :param node_label: A name of this node for people, in records and error texts.
    :param local_ranks_filter: Local ranks whose output is shown on the console; "all", None or
        empty for all. "auto": in a job of more than 8 ranks, the streams of all but rank 0 go into
        files instead, unless ``redirects`` or ``tee`` has them. Log files always have the output of
        every rank.
    :param exit_timeout: Seconds that a rank's process may take to end after its function returned.
        It ends as a Python program does: threads, executors and child processes finish first. A
        rank that takes longer is killed and counts as failed.
    :param hang_timeout: Seconds after which a rank that has reported progress (``worker.progress``,
        ``worker.step``) and reports no more counts as failed, with the stacks of all ranks. "auto"
        learns them from the rank's own past and whether it works; None switches that off. A rank
        that never reports is not watched.
    :param restart_grace: Seconds that the other workers of a round that has failed get between
        being asked to stop and being killed, at most ``shutdown_timeout``. A rank in a collective
        waits for the one that has failed, whatever time it is given.
    :param virtual_local_rank: If true, each worker has LOCAL_RANK 0, and CUDA_VISIBLE_DEVICES shows
        it one device: its own.
    :param signals_to_handle: Names of the signals that end the job in order, with commas. Workers
        get the signal that came. Further ones, such as SLURM's "SIGUSR1", keep their handlers.
    :param numa_options: Binds each worker to CPUs near its GPU: "node", "socket", "exclusive",
        "core-complex", or a ``NumaOptions``, ours or torch's.
    :param log_line_prefix_template: What a worker's teed lines begin with on the console; it may
        hold ``${role_name}``, ``${rank}``, ``${local_rank}`` and ``${hostname}``. None: torchrun's
        variable ``TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE``, else ``[${role_name}${local_rank}]:``.
    :param duplicate_stdout_filters: Texts. A teed line that holds one of them is also written into
        the file ``filtered_stdout.log`` of its attempt, which all workers of the node share.
    :param duplicate_stderr_filters: The same for standard error.
    :param log_lines: How lines of ranks are in an Airflow task's log. "folded": the same line of
        three ranks or more is one line. "separate": it is not. With both, lines beyond a backlog
        are left out if Airflow takes them too slowly; the log says how many, and a rank's last
        lines are never left out. "complete": each line is there, and ranks wait in their prints.
    :param checkpoint_path: Where jobs keep their checkpoints: a path, or a URI that fsspec knows.
        ``~`` is the agent's home. A path that is not absolute is below the agent's working
        directory, and for one node only. Without it, ranks of a job of one node save below
        ``./checkpoints``, in a folder of the name ``run_id`` if there is one; a job of several
        nodes has no place for checkpoints then.
    :param checkpoint_job: The job's own folder below that path, which all its lives share; by
        default ``run_id``. Without either, the path itself is the job's folder.
    :param checkpoint_every: How often all ranks save by themselves: after so many steps (100), or
        so much time ("90s", "10min", "2h"). None: only when somebody asks.
    :param checkpoint_keep: How many committed checkpoints are kept; older ones are removed.
    :param resume: What ``worker.resume`` gives. "auto": the newest committed checkpoint, but none
        from before the job's last success. "always": the newest, whatever the job has done since.
        "never": none, until the round has committed one itself.
    :param chaos: Faults that strike the job on purpose, to test how it recovers: values of
        ``llutil.chaos`` or texts, such as "kill(rank=1, step=5)"; none by default. The field has
        them as texts.
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
    shutdown_timeout: float = field(default_factory=_default_shutdown_timeout)
    event_log_handler: str = "null"
    rerun_token: str = ""
    node_index: int | None = None
    node_label: str = ""
    local_ranks_filter: Collection[int] | str | None = None
    exit_timeout: float = 300
    hang_timeout: float | str | None = "auto"
    restart_grace: float = DEFAULT_RESTART_GRACE
    virtual_local_rank: bool = False
    signals_to_handle: str = DEFAULT_SIGNALS
    numa_options: NumaOptions | None = None
    log_line_prefix_template: str | None = None
    duplicate_stdout_filters: Collection[str] | None = None
    duplicate_stderr_filters: Collection[str] | None = None
    log_lines: str = FOLDED
    checkpoint_path: _Folder | None = None
    checkpoint_job: str = ""
    checkpoint_every: int | str | None = None
    checkpoint_keep: int = 3
    resume: str = "auto"
    chaos: _Chaos = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "numa_options", numa_options_of(self.numa_options))
        object.__setattr__(self, "chaos", texts_of(self.chaos))
        timeout: Any = self.shutdown_timeout
        if timeout is None:  # as torch's configuration may say it
            object.__setattr__(self, "shutdown_timeout", _default_shutdown_timeout())
        if isinstance(self.rdzv_configs, Mapping):
            object.__setattr__(self, "rdzv_configs", conceal_options(self.rdzv_configs))
        if "@" in str(self.rdzv_endpoint):  # refused later; a password may stand before it
            object.__setattr__(self, "rdzv_endpoint", concealed(self.rdzv_endpoint))
        if self.rdzv_timeout != -1:
            warnings.warn(
                "rdzv_timeout is deprecated: give rdzv_configs={'timeout': seconds}",
                DeprecationWarning,
                stacklevel=3,
            )

    def rendezvous_options(self) -> dict[str, Any]:
        """All options of the backend: those of ``rdzv_configs``, and the defaults of the others.

        :raises ConfigError: an option is unknown or has a wrong value; all problems are listed.
        """
        given = dict(self.rdzv_configs)
        if self.rdzv_timeout != -1:
            given["timeout"] = self.rdzv_timeout
        return BACKENDS[self.rdzv_backend].values(given, "rdzv_configs")
