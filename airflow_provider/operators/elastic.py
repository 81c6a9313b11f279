"""``ElasticLaunchOperator``: one task that runs a distributed PyTorch job and pushes what its ranks
return.

This class has the parameters of a DAG file and their defaults; ``LaunchOperator`` acts on them.
Neither importing this module nor running the operator imports torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider.operators.launch_operator import LaunchOperator
from airflow_provider.parameters.operator_parameters import TEMPLATED
from airflow_provider.retries.launch_retry import LaunchRetry
from airflow_provider.retries.policy import ElasticRetryPolicy
from llutil.backends.table import DEFAULT
from llutil.chaos.fault_texts import texts_of
from llutil.std import AUTO_RANKS, FOLDED, Std, StdOption
from llutil.system.signal_names import DEFAULT_SIGNALS
from llutil.time_budgets import DEFAULT_GRACE_PERIOD, DEFAULT_RESTART_GRACE

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath, RetryPolicy

    from llutil.chaos.faults import Fault
    from llutil.launcher.numa_options import NumaOptions

__all__ = [
    "DEFAULT_RETRIES",
    "DEFAULT_RETRY_POLICY",
    "DEFAULT_START_METHOD",
    "ElasticLaunchOperator",
]

DEFAULT_START_METHOD = "forkserver"
"""How workers are started by default. Its workers find torch imported already."""

DEFAULT_RETRIES = 3
"""The retries of a task, if neither its DAG file nor ``default_args`` gives a number."""

DEFAULT_RETRY_POLICY = ElasticRetryPolicy()
"""The policy that decides whether a retry happens, if the DAG file gives none."""


class ElasticLaunchOperator(LaunchOperator):
    """Runs a function, script, module or command on every rank of a PyTorch job, on this task's
    worker.

    An agent process of its own starts the ranks and looks after them; see
    ``llutil.launcher.launch_agent`` for what it does. XCom ``return_value`` holds what each rank of
    this node returned, by rank as a string (``{"0": ..., "1": ...}``), and ``rank_<n>`` one rank's
    value; scripts, modules and commands return None.

    A rank that fails, a lost agent, a rendezvous that times out and a wrong parameter fail the
    task. Then ``retry_policy`` decides by the class of the failure whether it is retried.

    :param entrypoint: what each rank runs: a function, ``"package.module:function"``, the path of a
        Python script, ``"-m module"``, or a command. A path that is not absolute is relative to the
        DAG file's folder. (templated, unless it is a function)
    :param op_args: positional arguments of the function, or the command-line arguments. (templated)
    :param op_kwargs: keyword arguments of the function. A function that is given as an object also
        gets the values of Airflow's context that it has parameters for, if they are plain values.
        (templated)
    :param nnodes: nodes of the job: a number, or ``"min:max"``. (templated)
    :param nproc_per_node: workers of each node: a number, ``"cpu"``, ``"gpu"``, ``"xpu"``,
        ``"auto"`` or the name of an accelerator that a plugin has given torch. (templated)
    :param rdzv_id: the job's name, which all of its nodes must share; by default a name of this try
        of this task instance, for jobs of one node. (templated)
    :param role: the workers' role. (templated)
    :param rdzv_endpoint: ``host:port`` where nodes meet; not needed for one node. (templated)
    :param rdzv_conn_id: an Airflow connection of type ``etcd`` or ``zookeeper``. It has the
        endpoint where nodes meet and their credentials, and replaces ``rdzv_endpoint`` and
        ``rdzv_backend``; by default that of ``[elastic_launch] rdzv_conn_id``. (templated)
    :param rdzv_backend: ``"etcd"``, ``"zeus-adapter"``, ``"served"``, ``"c10d"`` or ``"static"``. A
        gang with neither a connection nor an endpoint is ``"served"``: by its node 0. (templated)
    :param rdzv_configs: the backend's options. (templated)
    :param rdzv_timeout: deprecated, use ``rdzv_configs={"timeout": seconds}``.
    :param max_restarts: how often failed workers are started again before the job fails.
        (templated)
    :param monitor_interval: seconds between two checks for an event that was missed.
    :param start_method: ``"forkserver"``, where workers find torch imported, ``"spawn"``, where
        each has an interpreter of its own, or ``"fork"``, which is the same as
        ``"forkserver"`` here. (templated)
    :param log_dir: folder for the ranks' log files; by default a temporary one, removed after
        success and kept, if anything is in it, after a failure. (templated)
    :param redirects: streams of the ranks that go into files instead of the task's log.
    :param tee: streams of the ranks that go into files and into the task's log.
    :param local_ranks_filter: local ranks whose output reaches the task's log, or ``"all"``. By
        default, ``"auto"``, all in a job of up to 8 ranks, else rank 0; the others' is in files.
    :param metrics_cfg: the handler of each group of metrics, ``"torchelastic"`` and ``"llutil"``:
        ``"null"``, ``"console"`` (the task's log) or ``"module:Class"``.
    :param local_addr: this node's address for the other nodes. (templated)
    :param exit_timeout: seconds that a rank's process may take to end after its function returned:
        threads, executors and child processes finish first. A rank that takes longer has failed.
    :param hang_timeout: seconds after which a rank that has reported progress and reports no more
        has failed; ``"auto"`` learns them from the rank's own past, None switches that off.
    :param restart_grace: seconds that other ranks of a failed round get; at most ``grace_period``.
    :param virtual_local_rank: whether each rank has LOCAL_RANK 0 and sees one GPU, its own.
    :param signals_to_handle: signals that end the job in order, by name, with commas; SIGTERM is
        always one of them.
    :param numa_options: binds ranks to CPUs near their GPUs: ``"node"``, ``"socket"``,
        ``"exclusive"``, ``"core-complex"``, or a ``NumaOptions`` of ``llutil.launcher``.
    :param log_line_prefix_template: what lines of a rank begin with in the task's log; it may hold
        ``${role_name}``, ``${rank}`` and ``${local_rank}``.
    :param duplicate_stdout_filters: texts; teed lines that hold one go into a file of their own.
    :param duplicate_stderr_filters: the same for standard error.
    :param log_lines: ``"folded"``: the same line of three ranks or more is one line of the log, and
        lines are left out and counted if Airflow takes them too slowly; ``"separate"``: not folded;
        ``"complete"``: each line is there, and ranks wait.
    :param checkpoint_path: the folder of all jobs' checkpoints, which all workers share: an
        absolute path, or a URI that fsspec knows. (templated)
    :param checkpoint_job: the job's own folder below that path; by default one of this task in this
        DAG run, and outside a gang of this map index, whichever try it is. (templated)
    :param checkpoint_every: steps, or time (``"10min"``), after which all ranks save by themselves.
        (templated)
    :param checkpoint_keep: how many checkpoints are kept. (templated)
    :param resume: what ``worker.resume`` gives: ``"auto"``, the newest checkpoint, but none from
        before a success; ``"always"``, the newest; ``"never"``. (templated)
    :param chaos: faults that strike the job on purpose, to test how it recovers: values of
        ``llutil.chaos``, or texts such as ``"kill(rank=1, step=5)"``; none by default. (templated)
    :param event_log_handler: name of the handler of torch elastic's events.
    :param rerun_token: a text that all launches of the same ``rdzv_id`` share; a deliberate rerun
        has another one. For backends with a ledger, which all but torch's have. (templated)
    :param gang_nodes: set by ``gang``.
    :param min_nodes: set by ``gang``.
    :param gang_timeout: how long a gang has to form, in seconds. A node that has waited for
        ``rdzv_configs["timeout"]`` while too few of the others had a slot gives its own back and
        starts again later; that uses up no try.
    :param node_index: this node's place among the nodes; for backends with a ledger. (templated)
    :param node_label: this node's name for people; for backends with a ledger. (templated)
    :param env: environment variables, added to those of the task. (templated)
    :param cwd: working directory of agent and ranks; relative to the DAG file's folder. (templated)
    :param python: interpreter of agent and ranks, by default the task's own. It needs
        ``airflow-provider-elastic-launch[torch]``, and no Airflow. (templated)
    :param grace_period: seconds that ranks have to end by themselves when the job is stopped.
    :param retries: how often Airflow may run the task again; ``retry_policy`` decides whether it
        does.
    :param retry_policy: decides by the class of a failure whether it is retried; None for Airflow's
        own rule, which retries every failure.
    :param launch_retry: how often a launch that failed for reasons of infrastructure is repeated
        inside the try; ``LaunchRetry(attempts=1)`` for never.
    :param result_limit: the most bytes of JSON that one rank's value may take; by default 1 MiB,
        and 1 GiB with a ``results_path``.
    :param results_path: a folder of an object store, an ``ObjectStoragePath`` or its URI, for
        values that are too large for XCom. XCom then holds a reference, which
        ``airflow_provider.results`` reads; by default ``[elastic_launch] results_path``.
        (templated)
    :param results_threshold: values of at most so many bytes of JSON stay in XCom.
    :param results_format: ``"json"``, where arrays become lists, or ``"npz"``, where arrays and
        tensors in values are stored as arrays and read back as numpy's.
    :param links: pages to which Airflow's UI links from the task, as a dict of names and URLs, such
        as ``{"TensorBoard": "https://tb.example.com/?run={{ run_id }}"}``. (templated)
    :param multiple_outputs: not supported: the return value is a dict by rank.
    """

    template_fields: Sequence[str] = TEMPLATED
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "op_args": "py",
        "op_kwargs": "py",
        "rdzv_configs": "json",
        "env": "json",
        "links": "json",
        "launch": "json",
    }
    ui_color = "#f4e1d8"

    def __init__(
        self,
        *,
        entrypoint: Callable[..., Any] | str,
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        nnodes: int | str = 1,
        nproc_per_node: int | str = 1,
        rdzv_id: str | None = None,
        role: str = "default_role",
        rdzv_endpoint: str = "",
        rdzv_conn_id: str | None = None,
        rdzv_backend: str = DEFAULT.name,
        rdzv_configs: Mapping[str, Any] | None = None,
        rdzv_timeout: float = -1,
        max_restarts: int | str = 3,
        monitor_interval: float = 30,
        start_method: str = DEFAULT_START_METHOD,
        log_dir: str | os.PathLike[str] | None = None,
        redirects: StdOption = Std.NONE,
        tee: StdOption = Std.NONE,
        local_ranks_filter: Collection[int] | str | None = AUTO_RANKS,
        metrics_cfg: Mapping[str, str] | None = None,
        local_addr: str | None = None,
        event_log_handler: str = "null",
        exit_timeout: float = 300,
        hang_timeout: float | str | None = "auto",
        restart_grace: float = DEFAULT_RESTART_GRACE,
        virtual_local_rank: bool = False,
        signals_to_handle: str = DEFAULT_SIGNALS,
        numa_options: NumaOptions | str | None = None,
        log_line_prefix_template: str | None = None,
        duplicate_stdout_filters: Collection[str] | None = None,
        duplicate_stderr_filters: Collection[str] | None = None,
        log_lines: str = FOLDED,
        checkpoint_path: str | os.PathLike[str] | None = None,
        checkpoint_job: str = "",
        checkpoint_every: int | str | None = None,
        checkpoint_keep: int | str = 3,
        resume: str = "auto",
        chaos: Collection[Fault | str] | Fault | str | None = None,
        rerun_token: str = "",
        node_index: int | str | None = None,
        node_label: str = "",
        gang_nodes: int | None = None,
        min_nodes: int | None = None,
        gang_timeout: float = 24 * 3600,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        python: str | None = None,
        grace_period: float = DEFAULT_GRACE_PERIOD,
        retries: int | None = DEFAULT_RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        launch_retry: LaunchRetry | None = None,
        result_limit: int | None = None,
        results_path: ObjectStoragePath | str | None = None,
        results_threshold: int = 16 * 1024,
        results_format: str = "json",
        links: Mapping[str, str] | None = None,
        multiple_outputs: bool = False,
        **kwargs: Any,
    ) -> None:
        # ``retries`` and ``retry_policy`` are in the signature because a mapped task gets Airflow's
        # default for every parameter that is not.
        super().__init__(
            multiple_outputs=multiple_outputs, retries=retries, retry_policy=retry_policy, **kwargs
        )
        # Airflow would store and render a function in a template field as text.
        self.function = entrypoint if callable(entrypoint) else None
        self.entrypoint = None if callable(entrypoint) else entrypoint
        self.op_args = () if op_args is None else op_args
        self.op_kwargs = {} if op_kwargs is None else op_kwargs
        self.nnodes = nnodes
        self.nproc_per_node = nproc_per_node
        self.rdzv_id = rdzv_id
        self.role = role
        self.rdzv_endpoint = rdzv_endpoint
        self.rdzv_conn_id = rdzv_conn_id
        self.rdzv_backend = rdzv_backend
        self.rdzv_configs = rdzv_configs
        self.rdzv_timeout = rdzv_timeout
        self.max_restarts = max_restarts
        self.monitor_interval = monitor_interval
        self.start_method = start_method
        self.log_dir = log_dir
        self.redirects = redirects
        self.tee = tee
        self.local_ranks_filter = local_ranks_filter
        self.metrics_cfg = metrics_cfg
        self.local_addr = local_addr
        self.event_log_handler = event_log_handler
        self.exit_timeout = exit_timeout
        self.hang_timeout = hang_timeout
        self.restart_grace = restart_grace
        self.virtual_local_rank = virtual_local_rank
        self.signals_to_handle = signals_to_handle
        self.numa_options = numa_options
        self.log_line_prefix_template = log_line_prefix_template
        self.duplicate_stdout_filters = duplicate_stdout_filters
        self.duplicate_stderr_filters = duplicate_stderr_filters
        self.log_lines = log_lines
        self.checkpoint_path = checkpoint_path
        self.checkpoint_job = checkpoint_job
        self.checkpoint_every = checkpoint_every
        self.checkpoint_keep = checkpoint_keep
        self.resume = resume
        self.chaos = texts_of(chaos)
        self.rerun_token = rerun_token
        self.node_index = node_index
        self.node_label = node_label
        self.gang_nodes = gang_nodes
        self.min_nodes = min_nodes
        self.gang_timeout = gang_timeout
        self.env = env
        self.cwd = cwd
        self.python = python
        self.grace_period = grace_period
        self.launch_retry = LaunchRetry() if launch_retry is None else launch_retry
        self.result_limit = result_limit
        self.results_path = results_path
        self.results_threshold = results_threshold
        self.results_format = results_format
        self.links = links
        if rdzv_timeout != -1:
            warnings.warn(
                "rdzv_timeout is deprecated: give rdzv_configs={'timeout': seconds}",
                DeprecationWarning,
                stacklevel=3,
            )
        self.check()
