"""The links that Airflow's UI shows on a task while it runs: its ranks, and pages that the user
names, such as TensorBoard.

Airflow pushes an operator's links when the task has ended (3.3), so ``push_links`` pushes them at
its start too. Airflow reads the names of links from the stored DAG, and their URLs from XCom. No
page is asked whether it is there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_provider.parameters.link_parameters import link_names, link_url

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["TAB_ROUTE", "RanksLink", "UserLink", "links_of", "push_links"]

TAB_ROUTE = "elastic"
"""The last part of the URL of the tab in Airflow's UI that shows a task's job."""


class RanksLink(BaseOperatorLink):
    """Leads to the tab with the task's ranks, and the log of each."""

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "Ranks and their logs"

    @property
    def xcom_key(self) -> str:
        """Where Airflow looks for the URL."""
        return "_link_elastic_ranks"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The URL, of this Airflow."""
        del operator
        # Airflow gives the task instance itself (3.3). It makes the URL of its own page.
        page: str = getattr(ti_key, "log_url", "")
        return f"{page.partition('?')[0]}/plugin/{TAB_ROUTE}" if page else ""


class UserLink(BaseOperatorLink):
    """Leads to the page that the operator's ``links`` have by this name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """What the UI shows."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """Where Airflow looks for the URL."""
        return f"_link_elastic_{self._name}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The URL, which is rendered when the task runs; empty if that has come to none."""
        del ti_key
        return link_url(getattr(operator, "links", None), self._name)


def links_of(given: Any) -> list[BaseOperatorLink]:
    """The links of an operator with the ``links`` that are ``given``. What is no dict of names has
    none: it is not rendered yet, or is refused when the task runs.
    """
    return [RanksLink(), *map(UserLink, link_names(given))]


def push_links(operator: Any, context: Mapping[str, Any], log: logging.Logger) -> None:
    """Let the UI show the operator's links from now on."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.exceptions import AirflowRuntimeError

    ti = context["ti"]
    where = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id}
    try:
        for link in operator.operator_extra_links:
            if url := link.get_link(operator, ti_key=ti):
                # The UI looks for it in the database, whatever the deployment's XCom backend is.
                BaseXCom.set(link.xcom_key, url, **where, map_index=ti.map_index)
    except AirflowRuntimeError as error:
        log.warning("the task's links are shown at its end only: Airflow refused them: %s", error)
