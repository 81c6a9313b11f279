"""``ElasticPlugin``: the tab *Elastic* of task instances, as a plugin of Airflow's."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_provider.plugins.static_page import StaticPage

__all__ = ["ElasticPlugin"]

_PREFIX = "elastic-launch"
_NAMES = {
    "dag_id": "{DAG_ID}",
    "run_id": "{RUN_ID}",
    "task_id": "{TASK_ID}",
    "map_index": "{MAP_INDEX}",
}
"""What the page is asked for; Airflow's UI puts in the values, and leaves what it does not know."""


class ElasticPlugin(AirflowPlugin):
    """Serves the page, and has Airflow's UI show it as a tab.

    All addresses are relative: the UI resolves them below the path at which Airflow is served.
    """

    name = "elastic_launch"
    fastapi_apps: ClassVar[list[Any]] = [
        {"name": "Elastic", "app": StaticPage(), "url_prefix": f"/{_PREFIX}"}
    ]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Elastic",
            "href": f"{_PREFIX}/index.html?"
            + "&".join(f"{name}={value}" for name, value in _NAMES.items()),
            "icon": f"{_PREFIX}/icon.svg",
            "url_route": "elastic",
            "destination": "task_instance",
        }
    ]
