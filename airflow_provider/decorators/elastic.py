"""``@task.elastic``: the function below it runs on every rank of a PyTorch job.

It is ``ElasticLaunchOperator`` with the function as its entrypoint, and takes the operator's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.settings import task_problems
from llutil.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator

__all__ = ["elastic_task"]


class _ElasticDecoratedOperator(DecoratedOperator, ElasticLaunchOperator):
    """The operator that ``@task.elastic`` makes of a function.

    :param python_callable: the function; the other parameters are those of ``ElasticLaunchOperator``.
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


def elastic_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function that runs on every rank of a PyTorch job; ``@task.elastic`` in a DAG file.

    :param python_callable: the function.
    :param multiple_outputs: not supported, and so off also for a function that is annotated ``-> dict``:
        the task returns a dict of ranks.
    :param kwargs: parameters of ``ElasticLaunchOperator``.

    :raises ConfigError: ``multiple_outputs`` is asked for.
    """
    problems = task_problems({"multiple_outputs": multiple_outputs})
    if problems:
        raise ConfigError(problems)
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_ElasticDecoratedOperator,
        **kwargs,
    )
