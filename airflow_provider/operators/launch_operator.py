"""``LaunchOperator``: a task that launches a job, or one node of a gang, from its parameters.

A subclass names the parameters. They are checked when the DAG is parsed, as far as they are known
then, and when the task runs. The operator decides what goes to XCom and which errors Airflow sees;
``AgentHook`` runs the process. Importing this module imports no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider.operators.links import links_of, push_links
from airflow_provider.parameters.gang_parameters import (
    NODE_NAMES,
    check_limits,
    check_task_group,
    gang_problems,
    nnodes_of,
)
from airflow_provider.parameters.launch_config import LAUNCH_PARAMETERS, has_several_nodes
from airflow_provider.parameters.operator_parameters import (
    OWN_PARAMETERS,
    blank_templates,
    entrypoint_problems,
    is_unresolved,
    problems_so_far,
    unresolved_texts,
)
from airflow_provider.parameters.rendezvous import deployment_defaults
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import ConfigError, LaunchError, Problem

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from jinja2 import Environment

    from airflow_provider.execution.gang_node import Stoppable

__all__ = ["LaunchOperator"]

_PARAMETERS = ("nnodes", *LAUNCH_PARAMETERS, *OWN_PARAMETERS)


class LaunchOperator(BaseOperator):
    """A task that launches a job.

    The ``__init__`` of a subclass makes each parameter an attribute, and then calls ``check``. If
    the entrypoint is a function object, it is in ``function`` and ``entrypoint`` is None.
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
    links: Mapping[str, str] | None
    launch: dict[str, Any] | None = None
    job_succeeded: bool

    def check(self) -> None:
        """Check the parameters, which are attributes now.

        :raises ConfigError: parameters are wrong; the text lists all problems that are known yet.
        """
        fields = {name: getattr(self, name) for name in self.template_fields}
        self._unresolved = unresolved_texts(fields)
        self._running: Stoppable | None = None
        self.job_succeeded = False
        self._killed = False
        if getattr(self, "_BaseOperator__from_mapped", False):
            # Airflow makes mapped operators while the task runs. An error here would be retried,
            # whatever its class, so ``execute`` checks them.
            return
        parameters = self.parameters()
        problems = problems_so_far(parameters, endpoint_follows=_connection_says_where(parameters))
        if self.gang_nodes is not None or self.min_nodes is not None:
            text = (
                "and min_nodes cannot be given to a single task: write ElasticLaunchOperator.gang("
                "nodes=..., min_nodes=..., ...), which makes a mapped task instance for each node"
            )
            problems.append(Problem("gang_nodes", text))
        entrypoint = self.entrypoint if self.function is None else self.function
        if not is_unresolved(entrypoint):
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
        """One job of several nodes; each node is a mapped instance of one task.

        The map index is the node's preferred position in the order of nodes. The job starts once
        ``min_nodes`` of them run. Without an endpoint or a connection they meet at node 0, and
        cannot go on without it. For independent jobs use ``partial().expand()``.

        :param task_id: the task's id.
        :param nodes: the number of nodes, known when the DAG is parsed.
        :param min_nodes: the least number of nodes; by default all of them.
        :param map_index_template: the names of the nodes in Airflow's UI.
        :param kwargs: parameters of ``ElasticLaunchOperator`` and of every Airflow operator,
            except ``nnodes`` and ``node_index``, which a gang sets.

        :raises ConfigError: parameters are wrong, or the gang is in a mapped task group.
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
        """Check a gang of ``nodes`` with the parameters ``given``, as far as they are known yet.

        :raises ConfigError: parameters are wrong, or the gang is in a mapped task group.
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
        if not is_unresolved(entrypoint):
            problems += entrypoint_problems(entrypoint)
        if problems:
            raise ConfigError(problems)
        check_task_group(given.get("dag"), given.get("task_group"))
        check_limits(nodes, min_nodes, given)

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch the job. Returns what each rank of this node returned, by rank as a string.

        :raises AirflowFailException: the gang cannot form any more, or a rank raised it.
        :raises AirflowSkipException: a rank raised it.
        :raises LaunchError: the job failed, was stopped, or its agent was lost. A ``ConfigError``:
            the configuration or the entrypoint is wrong.
        """
        # Imported here, so that parsing a DAG does not import it.
        from airflow_provider.execution.final_exception import final_exception
        from airflow_provider.execution.log_by_text import log_by_text
        from airflow_provider.execution.task_run import TaskRun

        failed: Exception
        try:
            push_links(self, context, self.log)
            return TaskRun(self, context, self._set_running).run(self.log)
        except LaunchError as error:
            failed = final_exception(error) or error
        except AirflowFailException as error:
            failed = error
        # The text includes the cause. Frames of this package, of tenacity and of Airflow tell
        # nothing, and a reader looks for the report at the end of the log.
        log_by_text(failed)
        raise failed.with_traceback(None) from None

    @property
    def operator_extra_links(self) -> list[BaseOperatorLink]:
        """The links that Airflow's UI shows on the task. Airflow calls this for a mapped task too,
        with that in place of an operator (3.3).
        """
        mapped: Mapping[str, Any] | None = getattr(self, "partial_kwargs", None)
        return links_of(self.links if mapped is None else mapped.get("links"))

    def on_kill(self) -> None:
        """Ask the agent to end the job. It runs in a signal handler, where a log call could
        deadlock.
        """
        self._killed = True
        if self._running is not None:
            self._running.stop("Airflow asked the task to end")

    def _set_running(self, running: Stoppable) -> None:
        self._running = running
        if self._killed:
            self.on_kill()

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: Environment,
        seen_oids: set[int],
    ) -> None:
        """Render as Airflow does. Where ``render_template_as_native_obj`` is on, only the
        entrypoint's arguments, and a template that stands for a whole dict, become objects: an id
        ``1_000`` or a password ``007`` is no number.

        Then ``launch`` says what they have come to. Airflow calls this method of a mapped task too,
        and for objects inside of fields (3.3).
        """
        self._render_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self and {"dag", "dag_run", "ti"} <= context.keys():
            from airflow_provider.execution.resolved_launch import resolved_launch

            self.launch = resolved_launch(self, context)

    def _render_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: Environment,
        seen_oids: set[int],
    ) -> None:
        render = super()._do_render_template_fields
        if parent is not self or not self._should_render_native(self.get_dag()):
            render(parent, template_fields, context, jinja_env, seen_oids)
            return
        fields = list(template_fields)
        objects = {"op_args", "op_kwargs"}
        objects |= {
            name for name in ("env", "rdzv_configs") if isinstance(getattr(self, name), str)
        }
        natives = [name for name in fields if name in objects]
        render(parent, natives, context, jinja_env, seen_oids)
        operator: Any = self  # Airflow's types disagree about the attribute
        native = operator.render_template_as_native_obj
        operator.render_template_as_native_obj = False
        try:
            texts = [name for name in fields if name not in objects]
            render(parent, texts, context, self.get_template_env(), seen_oids)
        finally:
            operator.render_template_as_native_obj = native

    def parameters(self) -> dict[str, Any]:
        """The launch parameters and the operator's own that are checked, by name. They are rendered
        once the task runs.
        """
        values = {name: getattr(self, name) for name in _PARAMETERS}
        if self.gang_nodes is not None:
            values |= {
                "nnodes": nnodes_of(self.gang_nodes, self.min_nodes),
                "gang_nodes": self.gang_nodes,
            }
        return values

    def blank_templates(self) -> list[Problem]:
        """One problem for each parameter whose template was rendered to nothing, or that an
        upstream task has given nothing for.
        """
        rendered = {name: getattr(self, name) for name in self._unresolved}
        return blank_templates(self._unresolved, rendered)


def _connection_says_where(parameters: Mapping[str, Any]) -> bool:
    """Whether a connection has the endpoint where nodes meet."""
    if parameters["rdzv_conn_id"]:
        return True
    wanted = has_several_nodes(parameters) and not parameters["rdzv_endpoint"]
    return wanted and bool(deployment_defaults().conn_id)
