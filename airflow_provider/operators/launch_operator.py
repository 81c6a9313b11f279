"""``LaunchOperator``: from the parameters of a task to its launch, alone or as a node of a gang.

A subclass names the parameters. They are checked when the DAG is parsed, as far as they are known
then, and when the task runs. The operator owns the meaning: what goes to XCom, which error is worth
a retry. The process is ``AgentHook``'s. Importing this module imports no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider.parameters.gang_parameters import (
    NODE_NAMES,
    check_limits,
    check_place,
    gang_problems,
    nnodes_of,
)
from airflow_provider.parameters.launch_config import LAUNCH_PARAMETERS, has_several_nodes
from airflow_provider.parameters.operator_parameters import (
    OWN_PARAMETERS,
    blank_templates,
    entrypoint_problems,
    is_open,
    problems_so_far,
)
from airflow_provider.parameters.rendezvous import configured
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import ConfigError, LaunchError, Problem
from llutil.failure import FailureClass

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider.execution.gang_node import Stoppable

__all__ = ["LaunchOperator"]

_PARAMETERS = ("nnodes", *LAUNCH_PARAMETERS, *OWN_PARAMETERS)


class LaunchOperator(BaseOperator):
    """A task whose parameters make a launch.

    A subclass makes each parameter of its ``__init__`` an attribute, and then calls ``check``.
    ``function`` is the entrypoint where that is one, and ``entrypoint`` is None then.
    """

    function: Callable[..., Any] | None
    entrypoint: str | None
    op_args: Any
    op_kwargs: Any
    gang_nodes: int | None
    min_nodes: int | None
    gang_timeout: float
    env: Mapping[str, str] | None
    cwd: str | None
    python: str | None
    launch_retry: LaunchRetry
    result_limit: int | None
    results_path: ObjectStoragePath | str | None
    results_threshold: int
    results_format: str

    def check(self) -> None:
        """Check the parameters, which are all attributes now.

        :raises ConfigError: lists what is known to be wrong with them.
        """
        self._templates = {
            name: value
            for name in self.template_fields
            if isinstance(value := getattr(self, name), str) and is_open(value)
        }
        self._running: Stoppable | None = None
        self._killed = False
        if getattr(self, "_BaseOperator__from_mapped", False):
            # It is made while the task runs, where an error raised here would be retried: execute
            # checks it.
            return
        parameters = self.parameters()
        problems = problems_so_far(parameters, endpoint_follows=_says_where(parameters))
        if self.gang_nodes is not None or self.min_nodes is not None:
            text = (
                "and min_nodes are not for one task: write ElasticLaunchOperator.gang("
                "nodes=..., min_nodes=..., ...) for one mapped task instance a node"
            )
            problems.append(Problem("gang_nodes", text))
        entrypoint = self.entrypoint if self.function is None else self.function
        if not is_open(entrypoint):
            problems += entrypoint_problems(entrypoint)
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
        cls.check_gang(nodes, {**kwargs, "min_nodes": min_nodes})
        partial = cls.partial(
            task_id=task_id,
            gang_nodes=nodes,
            min_nodes=min_nodes,
            map_index_template=map_index_template,
            **kwargs,
        )
        mapped: MappedOperator = partial.expand(node_index=list(range(nodes)))
        return mapped

    @classmethod
    def check_gang(cls, nodes: Any, given: Mapping[str, Any]) -> None:
        """Refuse a gang of ``nodes`` with the parameters ``given`` if it cannot be, as far as one
        can tell yet.

        :raises ConfigError: lists what is wrong, or the gang stands in a mapped task group.
        """
        min_nodes = given.get("min_nodes")
        problems = gang_problems(nodes, min_nodes, given)
        if not problems:
            signature = inspect.signature(cls.__init__).parameters
            parameters = {
                **{name: signature[name].default for name in _PARAMETERS},
                **given,
                "nnodes": nnodes_of(nodes, min_nodes),
                "gang_nodes": nodes,
            }
            problems = problems_so_far(parameters, endpoint_follows=not parameters["rdzv_endpoint"])
        entrypoint = given.get("entrypoint")
        if not is_open(entrypoint):
            problems += entrypoint_problems(entrypoint)
        if problems:
            raise ConfigError(problems)
        check_place(given.get("dag"), given.get("task_group"))
        check_limits(nodes, min_nodes, given)

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
        values = {name: getattr(self, name) for name in _PARAMETERS}
        if self.gang_nodes is not None:
            values |= {
                "nnodes": nnodes_of(self.gang_nodes, self.min_nodes),
                "gang_nodes": self.gang_nodes,
            }
        return values

    def blank_templates(self) -> list[Problem]:
        """A problem for each parameter whose template has rendered to nothing."""
        return blank_templates(
            self._templates, {name: getattr(self, name) for name in self._templates}
        )


def _says_where(parameters: Mapping[str, Any]) -> bool:
    """Whether it is a connection that says where nodes meet."""
    if parameters["rdzv_conn_id"]:
        return True
    wanted = has_several_nodes(parameters) and not parameters["rdzv_endpoint"]
    return wanted and bool(configured().conn_id)
