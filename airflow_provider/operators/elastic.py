"""``ElasticLaunchOperator``: one task that runs a distributed PyTorch job and pushes what its ranks return.

The operator owns the meaning: what a user may ask for, what goes to XCom, which error is worth a retry. The
process is ``AgentHook``'s. Importing this module imports no torch, and running it imports none either.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider import settings
from airflow_provider.meeting import configured, resolve
from airflow_provider.retries import LaunchRetry
from llutil.errors import ConfigError, EntrypointError, FailureClass, LaunchError
from llutil.std import Std, StdOption

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider.hooks.agent import AgentHook
    from airflow_provider.launch import Launch
    from llutil.entrypoint import Entrypoint
    from llutil.launcher.launch_agent import LaunchConfig

__all__ = ["DEFAULT_RESULT_LIMIT", "DEFAULT_START_METHOD", "ElasticLaunchOperator"]

DEFAULT_START_METHOD = "spawn"
"""How workers are started if the DAG file does not say."""

DEFAULT_RESULT_LIMIT = 1024 * 1024
"""Bytes of JSON that one rank's value may take if the DAG file does not say."""


class ElasticLaunchOperator(BaseOperator):
    """Runs a function, script, module or command on every rank of a PyTorch job, on this task's worker.

    An agent process of its own starts the ranks and looks after them; see ``llutil.launcher.launch_agent``
    for what it does. XCom ``return_value`` holds what each rank of this node returned, by rank as a string
    (``{"0": ..., "1": ...}``), and ``rank_<n>`` one rank's value; scripts, modules and commands return None.

    A rank that fails, a lost agent and a rendezvous that does not come about fail the task, and Airflow's
    ``retries`` apply. What a retry cannot mend, such as a wrong parameter, fails it for good.

    :param entrypoint: what each rank runs: a function, ``"package.module:function"``, the path of a Python
        script, ``"-m module"``, or a command. A path that is not absolute is relative to the DAG file's
        folder. (templated, unless it is a function)
    :param op_args: positional arguments of the function, or the command-line arguments. (templated)
    :param op_kwargs: keyword arguments of the function. A function given as such also gets those of
        Airflow's context values that it names, as far as they are plain values. (templated)
    :param nnodes: nodes of the job: a number, or ``"min:max"``. (templated)
    :param nproc_per_node: workers of each node: a number, ``"cpu"``, ``"gpu"`` or ``"auto"``. (templated)
    :param rdzv_id: the job's name, which all of its nodes must share; by default one that names this try
        of this task instance, and so fits jobs of one node. (templated)
    :param role: the workers' role. (templated)
    :param rdzv_endpoint: ``host:port`` where nodes meet; not needed for one node. (templated)
    :param rdzv_conn_id: the Airflow connection that says where nodes meet, and as whom they get in, in place of
        ``rdzv_endpoint``; by default that of ``[elastic_launch] rdzv_conn_id``. (templated)
    :param rdzv_backend: ``"etcd"``, ``"zeus-adapter"``, ``"c10d"`` or ``"static"``. (templated)
    :param rdzv_configs: the backend's options. (templated)
    :param rdzv_timeout: deprecated, use ``rdzv_configs={"timeout": seconds}``.
    :param max_restarts: how often failed workers are started again before the job fails. (templated)
    :param monitor_interval: seconds between two looks for an event that was missed.
    :param start_method: ``"spawn"``, ``"fork"`` or ``"forkserver"``. (templated)
    :param log_dir: folder for the ranks' log files; by default a temporary one, removed after success and
        kept, if anything is in it, after a failure. (templated)
    :param redirects: streams of the ranks that go into files instead of the task's log.
    :param tee: streams of the ranks that go into files and into the task's log.
    :param metrics_cfg: torch elastic's metrics groups.
    :param local_addr: this node's address for the other nodes. (templated)
    :param event_log_handler: name of the handler of torch elastic's events.
    :param rerun_token: what this launch has in common with others of the same ``rdzv_id``, and a deliberate
        rerun has not; for the backends etcd and zeus-adapter. (templated)
    :param node_index: this node's preferred place among the nodes, from 0; for the same. (templated)
    :param node_label: what people call this node; for the same. (templated)
    :param env: environment variables, added to those of the task. (templated)
    :param cwd: working directory of agent and ranks; relative to the DAG file's folder. (templated)
    :param python: interpreter of agent and ranks, by default the task's own. It needs
        ``airflow-provider-elastic-launch[torch]``, and no Airflow. (templated)
    :param grace_period: seconds that ranks get to end by themselves when the job is stopped.
    :param launch_retry: when a launch that failed for reasons of infrastructure is repeated inside the
        try; ``LaunchRetry(attempts=1)`` for never.
    :param result_limit: the most bytes of JSON that one rank's value may take.
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
        rdzv_backend: str = "etcd",
        rdzv_configs: Mapping[str, Any] | None = None,
        rdzv_timeout: float = -1,
        max_restarts: int | str = 3,
        monitor_interval: float = 30,
        start_method: str = DEFAULT_START_METHOD,
        log_dir: str | os.PathLike[str] | None = None,
        redirects: StdOption = Std.NONE,
        tee: StdOption = Std.NONE,
        metrics_cfg: Mapping[str, str] | None = None,
        local_addr: str | None = None,
        event_log_handler: str = "null",
        rerun_token: str = "",
        node_index: int | str | None = None,
        node_label: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        python: str | None = None,
        grace_period: float = 30,
        launch_retry: LaunchRetry | None = None,
        result_limit: int = DEFAULT_RESULT_LIMIT,
        multiple_outputs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
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
        self.metrics_cfg = metrics_cfg
        self.local_addr = local_addr
        self.event_log_handler = event_log_handler
        self.rerun_token = rerun_token
        self.node_index = node_index
        self.node_label = node_label
        self.env = env
        self.cwd = cwd
        self.python = python
        self.grace_period = grace_period
        self.launch_retry = launch_retry or LaunchRetry()
        self.result_limit = result_limit
        self._templates = {
            name: value
            for name in self.template_fields
            if isinstance(value := getattr(self, name), str) and settings.is_open(value)
        }
        self._hook: AgentHook | None = None
        self._killed = False
        if rdzv_timeout != -1:
            warnings.warn(
                "rdzv_timeout is deprecated: give rdzv_configs={'timeout': seconds}",
                DeprecationWarning,
                stacklevel=3,
            )
        # A mapped task is made while it runs, where an error raised here would be retried: execute checks it.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            parameters = self._parameters()
            problems = settings.problems_so_far(
                parameters, endpoint_follows=_says_where(parameters)
            )
            if not settings.is_open(entrypoint):
                problems += settings.entrypoint_problems(entrypoint)
            if problems:
                raise ConfigError(problems)

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch the job; what each rank of this node returned, by rank as a string.

        :raises AirflowFailException: the configuration or the entrypoint cannot work.
        :raises LaunchError: the job failed, was stopped, or its agent was lost.
        """
        from airflow_provider.hooks.agent import AgentHook

        self._hook = hook = AgentHook(
            python=self.python, cwd=self._cwd_in(context), env=self.env or {}
        )
        if self._killed:
            self.on_kill()
        try:
            results = self._launch(context).run(hook, self.log)
        except LaunchError as error:
            if error.failure_class is FailureClass.BAD_CONFIGURATION:
                raise AirflowFailException(str(error)) from error
            raise
        if self.do_xcom_push:
            for rank, value in results.items():
                context["ti"].xcom_push(key=f"rank_{rank}", value=value)
        return {str(rank): value for rank, value in results.items()}

    def on_kill(self) -> None:
        """Ask the agent to end the job. Runs as a signal handler, where a log call could wait for ever."""
        self._killed = True
        if self._hook is not None:
            self._hook.stop("Airflow asked the task to end")

    def _launch(self, context: Context) -> Launch:
        """What to run, all of it checked.

        :raises ConfigError: lists all that is wrong.
        """
        # Not for parsing a DAG to pay for.
        from airflow_provider.connections import connected
        from airflow_provider.job import entrypoint_for
        from airflow_provider.launch import Launch
        from airflow_provider.run_id import TaskKey

        parameters = self._parameters()
        blank = settings.blank_templates(
            self._templates, {name: getattr(self, name) for name in self._templates}
        )
        known = {name: value for name, value in parameters.items() if name not in blank}
        problems = [*blank.values(), *settings.task_problems(known)]
        config: LaunchConfig | None = None
        entrypoint: Entrypoint | None = None
        try:
            # Only here, and only into the agent's socket: an attribute would be shown as a rendered template.
            known |= resolve(known, several=settings.has_several_nodes(known), connect=connected)
            config = settings.launch_config(known)
        except ConfigError as error:
            problems += error.problems
        if "entrypoint" not in blank:
            try:
                entrypoint = entrypoint_for(
                    self.function or self.entrypoint,
                    self.op_args,
                    self.op_kwargs,
                    context,
                    dag_folder=_dag_folder(context),
                    cwd=self._cwd_in(context),
                )
            except EntrypointError as error:
                if not problems:
                    raise
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        assert config is not None
        assert entrypoint is not None
        return Launch(
            config=config,
            entrypoint=entrypoint,
            key=TaskKey.of(context),
            try_number=context["ti"].try_number,
            result_limit=self.result_limit,
            retry=self.launch_retry,
        )

    def _parameters(self) -> dict[str, Any]:
        own = ("rdzv_conn_id", "env", "cwd", "python", "result_limit", "multiple_outputs")
        return {name: getattr(self, name) for name in ("nnodes", *settings.LAUNCH_PARAMETERS, *own)}

    def _cwd_in(self, context: Context) -> str | None:
        return os.path.normpath(_dag_folder(context) / self.cwd) if self.cwd else None


def _says_where(parameters: Mapping[str, Any]) -> bool:
    """Whether it is a connection that says where nodes meet."""
    if parameters["rdzv_conn_id"]:
        return True
    wanted = settings.has_several_nodes(parameters) and not parameters["rdzv_endpoint"]
    return wanted and bool(configured().conn_id)


def _dag_folder(context: Context) -> Path:
    return Path(context["dag"].fileloc).parent
