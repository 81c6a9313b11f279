"""``@task.elastic``: runs the decorated function on every rank of a PyTorch job.

It makes an ``ElasticLaunchOperator`` with the function as its entrypoint, and takes the operator's
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk.bases.decorator import DecoratedOperator, _TaskDecorator

from airflow_provider.operators.elastic import (
    DEFAULT_RETRIES,
    DEFAULT_RETRY_POLICY,
    ElasticLaunchOperator,
)
from airflow_provider.parameters.gang_parameters import NODE_NAMES, check_arguments
from airflow_provider.parameters.operator_parameters import task_problems
from llutil.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import XComArg
    from airflow.sdk.bases.decorator import TaskDecorator

__all__ = ["elastic_task"]


class _ElasticDecoratedOperator(DecoratedOperator, ElasticLaunchOperator):
    """The operator that ``@task.elastic`` makes of a function.

    :param python_callable: the function; the other parameters are those of
        ``ElasticLaunchOperator``.
    """

    template_fields: Sequence[str] = ElasticLaunchOperator.template_fields
    template_fields_renderers = ElasticLaunchOperator.template_fields_renderers
    custom_operator_name = "@task.elastic"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            kwargs_to_upstream={
                "entrypoint": python_callable,
                "op_args": op_args,
                "op_kwargs": op_kwargs,
            },
            **kwargs,
        )


class _ElasticTask(_TaskDecorator):
    """A function decorated with ``@task.elastic``: Airflow's decorated task, and ``gang``.

    A call makes a task. With ``gang=n`` the task is mapped to n instances, the nodes of one job.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        """The task that runs the function with these arguments.

        :raises ConfigError: the gang's parameters are wrong; the text lists all problems.
        """
        single = self.override()
        nodes = single.kwargs.pop("gang", None)
        if nodes is None:
            task: XComArg = super(_ElasticTask, single).__call__(*args, **kwargs)
            return task
        ElasticLaunchOperator.check_gang(nodes, {**single.kwargs, "entrypoint": self.function})
        check_arguments(self.function, args, kwargs)
        gang = single.override(
            gang_nodes=nodes,
            op_args=list(args),
            op_kwargs=kwargs,
            map_index_template=single.kwargs.get("map_index_template", NODE_NAMES),
        )
        if self.function.__doc__:
            gang.kwargs.setdefault("doc_md", self.function.__doc__)
        # Airflow can expand only the function's arguments. All nodes get those above, so each
        # instance adds none.
        mapped: XComArg = super(_ElasticTask, gang).expand_kwargs([{} for _ in range(nodes)])
        return mapped

    def expand(self, **map_kwargs: Any) -> XComArg:
        """Independent jobs, one for each value."""
        self._refuse_gang()
        mapped: XComArg = super().expand(**map_kwargs)
        return mapped

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> XComArg:
        """Independent jobs, one for each dict."""
        self._refuse_gang()
        mapped: XComArg = super().expand_kwargs(kwargs, strict=strict)
        return mapped

    def _expand(self, expand_input: Any, *, strict: bool) -> XComArg:
        """Add the operator's defaults: Airflow leaves them out when it maps a decorated function
        (3.3).
        """
        defaults = {"retries": DEFAULT_RETRIES, "retry_policy": DEFAULT_RETRY_POLICY}
        given = {*self.kwargs, *_default_args(self.kwargs)}
        # A copy, since this one may be mapped again where other default_args apply.
        task = self.override(
            **{name: value for name, value in defaults.items() if name not in given}
        )
        mapped: XComArg = super(_ElasticTask, task)._expand(expand_input, strict=strict)
        return mapped

    def _refuse_gang(self) -> None:
        if self.kwargs.get("gang") is not None:
            raise ConfigError(
                f"gang is {self.kwargs['gang']!r}, but a gang is one job, which an ordinary call "
                "makes; leave gang out if expand() is to make independent jobs"
            )


def _default_args(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``default_args`` of the DAG and task groups around a mapped task with these
    parameters.
    """
    from airflow.sdk.bases.operator import get_merged_defaults
    from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext

    dag = kwargs.get("dag") or DagContext.get_current()
    group = kwargs.get("task_group") or (TaskGroupContext.get_current(dag) if dag else None)
    found: Mapping[str, Any]
    found, _ = get_merged_defaults(dag, group, None, kwargs.get("default_args"))
    return found


def elastic_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function that runs on every rank of a PyTorch job; ``@task.elastic`` in a
    DAG file.

    :param python_callable: the function.
    :param multiple_outputs: not supported, and so off even for a function that is annotated ``->
        dict``: the task returns a dict by rank.
    :param kwargs: parameters of ``ElasticLaunchOperator``. With ``gang=n`` a call makes one mapped
        task instance for each of the n nodes of one job; ``min_nodes`` allows fewer.

    :raises ConfigError: ``multiple_outputs`` is asked for.
    """
    problems = task_problems({"multiple_outputs": multiple_outputs})
    if problems:
        raise ConfigError(problems)

    def decorate(function: Callable[..., Any]) -> _ElasticTask:
        return _ElasticTask(
            function=function,
            multiple_outputs=False,
            operator_class=_ElasticDecoratedOperator,
            kwargs=dict(kwargs),
        )

    if python_callable is None:
        return cast("TaskDecorator", decorate)
    if not callable(python_callable):
        raise TypeError("@task.elastic takes its parameters by name")
    return cast("TaskDecorator", decorate(python_callable))
