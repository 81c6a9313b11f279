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
from llutil.backends.table import BACKENDS

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


def test_a_type_of_connections_has_the_fields_that_its_backend_has_in_the_table():
    shown = {
        form["connection-type"]: {
            key: (field["label"], field["description"].replace("`", "").lower())
            for key, field in form["conn-fields"].items()
        }
        for form in INFO["connection-types"]
    }
    assert shown == {
        backend.connection_type: {
            option.key: (option.label, option.text.replace("`", "").lower())
            for option in backend.connection_options
        }
        for backend in BACKENDS.values()
        if backend.connection_type
    }


@pytest.mark.parametrize("form", INFO["connection-types"], ids=lambda form: form["hook-name"])
def test_a_type_of_connections_names_a_hook_of_that_type(form):
    module, _, name = form["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (form["connection-type"], form["hook-name"])


OPTIONS = INFO["config"]["elastic_launch"]["options"]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_description_and_its_default_is_what_airflow_answers(name):
    from airflow.configuration import conf as core
    from airflow.sdk.configuration import conf

    assert len(OPTIONS[name]["description"]) > 20
    assert OPTIONS[name]["type"] in {"string", "float"}
    for one in (core, conf):
        assert one.get("elastic_launch", name) == OPTIONS[name]["default"]


def test_airflow_has_found_it():
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk import task

    assert INFO["package-name"] in ProvidersManager().providers
    assert task.elastic is elastic_task
