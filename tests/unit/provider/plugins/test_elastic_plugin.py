"""What Airflow's UI is told about the tab."""

from __future__ import annotations

from importlib import metadata
from urllib.parse import parse_qs, urlsplit

from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

from airflow_provider.plugins.elastic_plugin import ElasticPlugin
from airflow_provider.plugins.static_page import StaticPage

(APP,) = ElasticPlugin.fastapi_apps
(VIEW,) = ElasticPlugin.external_views


def test_airflow_finds_it_by_its_entry_point():
    (point,) = metadata.entry_points(group="airflow.plugins", name="elastic_launch")
    assert point.load() is ElasticPlugin


def test_the_tab_is_one_of_task_instances_as_airflow_understands_it():
    view = ExternalViewResponse.model_validate(VIEW)
    assert (view.name, view.destination, view.url_route) == ("Elastic", "task_instance", "elastic")


def test_its_addresses_are_relative_so_that_airflow_may_lie_below_a_path():
    for address in (VIEW["href"], VIEW["icon"]):
        assert not urlsplit(address).netloc
        assert f"/{address}".startswith(f"{APP['url_prefix']}/")


def test_the_page_is_told_the_task_instance():
    asked = parse_qs(urlsplit(VIEW["href"]).query)
    assert asked == {
        "dag_id": ["{DAG_ID}"],
        "run_id": ["{RUN_ID}"],
        "task_id": ["{TASK_ID}"],
        "map_index": ["{MAP_INDEX}"],
    }


def test_what_it_serves_is_static_files_alone():
    assert isinstance(APP["app"], StaticPage)
    assert len(ElasticPlugin.fastapi_apps) == 1
    assert ElasticPlugin.fastapi_root_middlewares == []
