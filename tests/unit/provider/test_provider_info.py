"""What Airflow is told is what there is."""

from __future__ import annotations

import json
from importlib import import_module, metadata
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.get_provider_info import get_provider_info

INFO = get_provider_info()


def test_it_validates_against_airflows_schema():
    schema = Path(airflow.__file__).with_name("provider_info.schema.json")
    jsonschema.validate(INFO, json.loads(schema.read_text()))


def test_it_names_the_distribution_that_is_installed():
    assert metadata.metadata(INFO["package-name"])["Name"] == INFO["package-name"]


@pytest.mark.parametrize(
    "module",
    [
        module
        for key in ("operators", "hooks")
        for row in INFO[key]
        for module in row["python-modules"]
    ],
)
def test_every_module_that_it_names_exists(module):
    import_module(module)


@pytest.mark.parametrize("decorator", INFO["task-decorators"])
def test_every_decorator_that_it_names_exists(decorator):
    module, _, name = decorator["class-name"].rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_airflow_has_found_it():
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk import task

    assert INFO["package-name"] in ProvidersManager().providers
    assert task.elastic is elastic_task
