"""``ElasticLaunchOperator``: one task that runs a distributed PyTorch job and pushes what its ranks
return.

The operator owns the meaning: what a user may ask for, what goes to XCom, which error is worth a
retry. The process is ``AgentHook``'s. Importing this module imports no torch, and running it
imports none either.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider.parameters import operator_parameters
from airflow_provider.parameters.gang_parameters import (
    NODE_NAMES,
    check_limits,
    check_place,
    gang_problems,
    nnodes_of,
)
from airflow_provider.parameters.rendezvous import configured
from airflow_provider.retries.launch_retry import LaunchRetry
from airflow_provider.retries.policy import ElasticRetryPolicy
from llutil.backends.table import DEFAULT
from llutil.errors import ConfigError, LaunchError, Problem
from llutil.failure import FailureClass
from llutil.std import Std, StdOption

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath, RetryPolicy
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider.execution.gang_node import Stoppable

__all__ = [
    "DEFAULT_RESULT_LIMIT",
    "DEFAULT_RETRIES",
    "DEFAULT_RETRY_POLICY",
    "DEFAULT_START_METHOD",
    "DEFAULT_STORED_RESULT_LIMIT",
    "ElasticLaunchOperator",
    "check_gang",
]

DEFAULT_START_METHOD = "forkserver"
"""How workers are started if the DAG file does not say: warm, since the agent's process imports
torch in any case.
"""

DEFAULT_RESULT_LIMIT = 1024 * 1024
"""Bytes of JSON that one rank's value may take if the DAG file does not say."""

DEFAULT_STORED_RESULT_LIMIT = 1024 * 1024 * 1024
"""The same, where ``results_path`` keeps large values out of Airflow's database."""
DEFAULT_RETRIES = 3
"""Retries that a task has if neither its DAG file nor ``default_args`` says."""

DEFAULT_RETRY_POLICY = ElasticRetryPolicy()
"""What decides about them if the DAG file does not say."""

_OWN = (
    "rdzv_conn_id",
    "gang_timeout",
    "env",
    "cwd",
    "python",
    "result_limit",
    "results_path",
    "results_threshold",
    "results_format",
    "retry_policy",
    "multiple_outputs",
)


class ElasticLaunchOperator(BaseOperator):
    """Runs a function, script, module or command on every rank of a PyTorch job, on this task's
    worker.

    An agent process of its own starts the ranks and looks after them; see
    ``llutil.launcher.launch_agent`` for what it does. XCom ``return_value`` holds what each rank of
    this node returned, by rank as a string (``{"0": ..., "1": ...}``), and ``rank_<n>`` one rank's
    value; scripts, modules and commands return None.

    A rank that fails, a lost agent, a rendezvous that does not come about and a wrong parameter
    fail the task; ``retry_policy`` decides, by the class of the failure, what follows.

    :param entrypoint: what each rank runs: a function, ``"package.module:function"``, the path of a
        Python script, ``"-m module"``, or a command. A path that is not absolute is relative to the
        DAG file's folder. (templated, unless it is a function)
    :param op_args: positional arguments of the function, or the command-line arguments. (templated)
    :param op_kwargs: keyword arguments of the function. A function given as such also gets those of
        Airflow's context values that it names, as far as they are plain values. (templated)
    :param nnodes: nodes of the job: a number, or ``"min:max"``. (templated)
    :param nproc_per_node: workers of each node: a number, ``"cpu"``, ``"gpu"`` or ``"auto"``.
        (templated)
    :param rdzv_id: the job's name, which all of its nodes must share; by default one that names
        this try of this task instance, and so fits jobs of one node. (templated)
    :param role: the workers' role. (templated)
    :param rdzv_endpoint: ``host:port`` where nodes meet; not needed for one node. (templated)
    :param rdzv_conn_id: the Airflow connection, of type ``etcd`` or ``zookeeper``, that says where
        nodes meet, and as whom they get in, in place of ``rdzv_endpoint`` and ``rdzv_backend``; by
        default that of ``[elastic_launch] rdzv_conn_id``. (templated)
    :param rdzv_backend: ``"etcd"``, ``"zeus-adapter"``, ``"c10d"`` or ``"static"``. (templated)
    :param rdzv_configs: the backend's options. (templated)
    :param rdzv_timeout: deprecated, use ``rdzv_configs={"timeout": seconds}``.
    :param max_restarts: how often failed workers are started again before the job fails.
        (templated)
    :param monitor_interval: seconds between two looks for an event that was missed.
    :param start_method: ``"forkserver"``, where workers find torch imported, ``"spawn"``, where
        each has an interpreter of its own, or ``"fork"``, a copy of the agent. (templated)
    :param log_dir: folder for the ranks' log files; by default a temporary one, removed after
        success and kept, if anything is in it, after a failure. (templated)
    :param redirects: streams of the ranks that go into files instead of the task's log.
    :param tee: streams of the ranks that go into files and into the task's log.
    :param local_ranks_filter: local ranks whose output reaches the task's log; by default all. Log
        files have everything.
    :param metrics_cfg: who takes the metrics of a group: ``"null"``, ``"console"``, which is the
        task's log, or the ``"module:Class"`` of a handler, by the names of groups:
        ``"torchelastic"`` and ``"llutil"``.
    :param local_addr: this node's address for the other nodes. (templated)
    :param exit_timeout: seconds that a rank's process may take to end after its function returned:
        threads, executors and child processes finish first. A rank that takes longer has failed.
    :param event_log_handler: name of the handler of torch elastic's events.
    :param rerun_token: what this launch has in common with others of the same ``rdzv_id``, and a
        deliberate rerun has not; for the backends etcd and zeus-adapter. (templated)
    :param gang_nodes: set by ``gang``.
    :param min_nodes: set by ``gang``.
    :param gang_timeout: seconds that a gang has to form. A node that has waited for
        ``rdzv_configs["timeout"]`` while too few of the others were running gives its slot back and
        comes again later; it uses up no try.
    :param node_index: this node's preferred place among the nodes, from 0; for the backends etcd
        and zeus-adapter. (templated)
    :param node_label: what people call this node; for the backends etcd and zeus-adapter.
        (templated)
    :param env: environment variables, added to those of the task. (templated)
    :param cwd: working directory of agent and ranks; relative to the DAG file's folder. (templated)
    :param python: interpreter of agent and ranks, by default the task's own. It needs
        ``airflow-provider-elastic-launch[torch]``, and no Airflow. (templated)
    :param grace_period: seconds that ranks get to end by themselves when the job is stopped.
    :param retries: how often Airflow may run the task again; ``retry_policy`` decides whether it
        does.
    :param retry_policy: what follows a failure, by its class; None for Airflow's own rule, which
        retries whatever failed.
    :param launch_retry: when a launch that failed for reasons of infrastructure is repeated inside
        the try; ``LaunchRetry(attempts=1)`` for never.
    :param result_limit: the most bytes of JSON that one rank's value may take; by default 1 MiB,
        and 1 GiB with a ``results_path``.
    :param results_path: a folder of an object store, an ``ObjectStoragePath`` or its URI, that
        takes values too large for XCom, which then holds a reference:
        ``airflow_provider.results.result_readers`` has what reads it; by default that of
        ``[elastic_launch] results_path``, if there is one. (templated)
    :param results_threshold: up to how many bytes of JSON a value stays in XCom all the same.
    :param results_format: ``"json"``, where arrays become lists, or ``"npz"``, where values that
        hold arrays or tensors are stored with them, and come back with arrays of numpy.
    :param multiple_outputs: not supported: the return value is a dict of ranks.
    """

    template_fields: Sequence[str] = (
        "entrypoint",
        "op_args",
        "op_kwargs",
        "nnodes",
        "nproc_per_node",
        "rdzv_id",
        "role",
        "rdzv_endpoint",
        "rdzv_conn_id",
        "rdzv_backend",
        "rdzv_configs",
        "max_restarts",
        "start_method",
        "log_dir",
        "local_addr",
        "rerun_token",
        "node_index",
        "node_label",
        "env",
        "cwd",
        "python",
        "results_path",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "op_args": "py",
        "op_kwargs": "py",
        "rdzv_configs": "json",
        "env": "json",
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
        local_ranks_filter: Collection[int] | None = None,
        metrics_cfg: Mapping[str, str] | None = None,
        local_addr: str | None = None,
        event_log_handler: str = "null",
        exit_timeout: float = 300,
        rerun_token: str = "",
        node_index: int | str | None = None,
        node_label: str = "",
        gang_nodes: int | None = None,
        min_nodes: int | None = None,
        gang_timeout: float = 24 * 3600,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        python: str | None = None,
        grace_period: float = 30,
        retries: int | None = DEFAULT_RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        launch_retry: LaunchRetry | None = None,
        result_limit: int | None = None,
        results_path: ObjectStoragePath | str | None = None,
        results_threshold: int = 16 * 1024,
        results_format: str = "json",
        multiple_outputs: bool = False,
        **kwargs: Any,
    ) -> None:
        # Of what is not in the signature above, a mapped task gets Airflow's own default.
        super().__init__(
            multiple_outputs=multiple_outputs, retries=retries, retry_policy=retry_policy, **kwargs
        )
        # A function in a template field would be stored as text, and rendered as text.
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
        self.launch_retry = launch_retry or LaunchRetry()
        self.result_limit = result_limit
        self.results_path = results_path
        self.results_threshold = results_threshold
        self.results_format = results_format
        self._templates = {
            name: value
            for name in self.template_fields
            if isinstance(value := getattr(self, name), str) and operator_parameters.is_open(value)
        }
        self._running: Stoppable | None = None
        self._killed = False
        if rdzv_timeout != -1:
            warnings.warn(
                "rdzv_timeout is deprecated: give rdzv_configs={'timeout': seconds}",
                DeprecationWarning,
                stacklevel=3,
            )
        # A mapped task is made while it runs, where an error raised here would be retried: execute
        # checks it.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            parameters = self.parameters()
            problems = operator_parameters.problems_so_far(
                parameters, endpoint_follows=_says_where(parameters)
            )
            if gang_nodes is not None or min_nodes is not None:
                text = (
                    "and min_nodes are not for one task: write ElasticLaunchOperator.gang("
                    "nodes=..., min_nodes=..., ...) for one mapped task instance a node"
                )
                problems.append(Problem("gang_nodes", text))
            if not operator_parameters.is_open(entrypoint):
                problems += operator_parameters.entrypoint_problems(entrypoint)
            if problems:
                raise ConfigError(problems)

    @classmethod
    def gang(
        cls,
        *,
        task_id: str,
        nodes: int,
        min_nodes: int | None = None,
        map_index_template: str = NODE_NAMES,
        **kwargs: Any,
    ) -> MappedOperator:
        """One job of several nodes, each of which is a mapped instance of one task.

        The map index is the node's preferred place among the nodes. The job starts once
        ``min_nodes`` of them run. If nothing says where they meet, they do so at node 0, without
        which they cannot go on. For independent jobs use ``partial().expand()``.

        :param task_id: the task's id.
        :param nodes: the number of nodes, known when the DAG is parsed.
        :param min_nodes: the least number of nodes; by default all of them.
        :param map_index_template: what the nodes are called in Airflow's UI.
        :param kwargs: parameters of ``ElasticLaunchOperator`` and of every Airflow operator,
            without those that a gang says itself: ``nnodes`` and ``node_index``.

        :raises ConfigError: lists what is wrong, or the gang stands in a mapped task group.
        """
        check_gang(nodes, {**kwargs, "min_nodes": min_nodes})
        partial = cls.partial(
            task_id=task_id,
            gang_nodes=nodes,
            min_nodes=min_nodes,
            map_index_template=map_index_template,
            **kwargs,
        )
        mapped: MappedOperator = partial.expand(node_index=list(range(nodes)))
        return mapped

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch the job; what each rank of this node returned, by rank as a string.

        :raises AirflowFailException: too few nodes of the gang can come.
        :raises LaunchError: the job failed, was stopped, or its agent was lost; or, a
            ``ConfigError``, the configuration or the entrypoint cannot work.
        """
        # Not for parsing a DAG to pay for.
        from airflow_provider.execution.task_run import TaskRun

        try:
            results = TaskRun(self, context, self._hold).run(self.log)
        except LaunchError as error:
            # Airflow logs an error with its chain and every frame that it came through. Its text is
            # all there is to know: neither a second copy of it nor tenacity's frames.
            told = error.failure_class is FailureClass.BAD_CONFIGURATION
            raise error.with_traceback(None) from (None if told else error.__cause__)
        if self.do_xcom_push:
            for rank, value in results.items():
                context["ti"].xcom_push(key=f"rank_{rank}", value=value)
        return {str(rank): value for rank, value in results.items()}

    def on_kill(self) -> None:
        """Ask the agent to end the job. Runs as a signal handler, where a log call could wait for
        ever.
        """
        self._killed = True
        if self._running is not None:
            self._running.stop("Airflow asked the task to end")

    def _hold(self, running: Stoppable) -> None:
        self._running = running
        if self._killed:
            self.on_kill()

    def parameters(self) -> dict[str, Any]:
        """Its parameters by name, as far as they are the launcher's or checked; rendered, once it
        runs.
        """
        values = {
            name: getattr(self, name)
            for name in ("nnodes", *operator_parameters.LAUNCH_PARAMETERS, *_OWN)
        }
        if self.gang_nodes is not None:
            values |= {
                "nnodes": nnodes_of(self.gang_nodes, self.min_nodes),
                "gang_nodes": self.gang_nodes,
            }
        return values

    def most_result(self, *, stored: bool) -> int:
        """The most bytes of JSON that one rank's value may take; ``stored``: if it is large, it
        does not go to XCom.
        """
        if self.result_limit is not None:
            return self.result_limit
        return DEFAULT_STORED_RESULT_LIMIT if stored else DEFAULT_RESULT_LIMIT

    def blank_templates(self) -> list[Problem]:
        """A problem for each parameter whose template has rendered to nothing."""
        return operator_parameters.blank_templates(
            self._templates, {name: getattr(self, name) for name in self._templates}
        )


def check_gang(nodes: Any, given: Mapping[str, Any]) -> None:
    """Refuse a gang of ``nodes`` with the parameters ``given`` if it cannot be, as far as one can
    tell yet.

    :raises ConfigError: lists what is wrong, or the gang stands in a mapped task group.
    """
    min_nodes = given.get("min_nodes")
    problems = gang_problems(nodes, min_nodes, given)
    if not problems:
        parameters = (
            _defaults()
            | dict(given)
            | {
                "nnodes": nnodes_of(nodes, min_nodes),
                "gang_nodes": nodes,
            }
        )
        problems = operator_parameters.problems_so_far(
            parameters, endpoint_follows=not parameters["rdzv_endpoint"]
        )
    entrypoint = given.get("entrypoint")
    if not operator_parameters.is_open(entrypoint):
        problems += operator_parameters.entrypoint_problems(entrypoint)
    if problems:
        raise ConfigError(problems)
    check_place(given.get("dag"), given.get("task_group"))
    check_limits(nodes, min_nodes, given)


def _defaults() -> dict[str, Any]:
    """The parameters that a DAG file need not give."""
    signature = inspect.signature(ElasticLaunchOperator.__init__).parameters
    return {
        name: signature[name].default for name in (*operator_parameters.LAUNCH_PARAMETERS, *_OWN)
    }


def _says_where(parameters: Mapping[str, Any]) -> bool:
    """Whether it is a connection that says where nodes meet."""
    if parameters["rdzv_conn_id"]:
        return True
    wanted = operator_parameters.has_several_nodes(parameters) and not parameters["rdzv_endpoint"]
    return wanted and bool(configured().conn_id)
