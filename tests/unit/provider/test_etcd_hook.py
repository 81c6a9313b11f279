"""What a connection of type ``etcd`` says, however it is stored; nothing is connected to here."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection

from airflow_provider.connections import connected
from airflow_provider.get_provider_info import get_provider_info
from airflow_provider.hooks.etcd import EtcdHook, place_of
from llutil.errors import ConfigError


def connection(**fields):
    return Connection(**{"conn_id": "c", "conn_type": "etcd", "host": "e0"} | fields)


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"host": "e0:1"}, "e0:1"),
        ({"host": "e0"}, "e0:2379"),
        ({"host": "e0", "port": 4}, "e0:4"),
        ({"host": " e0:1, e1 ,e2:3,", "port": 4}, "e0:1,e1:4,e2:3"),
        ({"host": "[::1]:1,[::2]"}, "[::1]:1,[::2]:2379"),
    ],
)
def test_hosts_are_endpoints_and_get_the_port_that_they_lack(fields, endpoint):
    assert place_of(connection(**fields)).endpoint == endpoint


@pytest.mark.parametrize(
    "stored",
    [
        json.dumps(
            {
                "conn_type": "etcd",
                "host": "e0:1,e1:2",
                "login": "train",
                "password": "p@,:/word",
                "extra": {"namespace": "prod", "cacert": "/ca.pem", "timeout": 60},
            }
        ),
        "etcd://train:p%40%2C%3A%2Fword@e0%3A1%2Ce1%3A2/?namespace=prod&cacert=%2Fca.pem&timeout=60",
    ],
    ids=["json", "uri"],
)
def test_several_hosts_and_options_come_from_the_environment(monkeypatch, stored):
    monkeypatch.setenv("AIRFLOW_CONN_MY_ETCD", stored)
    place = EtcdHook("my_etcd").get_conn()
    assert place == connected("my_etcd")
    assert (place.backend, place.endpoint) == ("etcd", "e0:1,e1:2")
    assert place.configs == {
        "user": "train",
        "password": "p@,:/word",
        "namespace": "prod",
        "cacert": "/ca.pem",
        "timeout": 60.0,
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": ""}, ["'c' has no host"]),
        ({"host": "https://e0:2379"}, ["without a scheme"]),
        ({"login": "ann"}, ["only one of login and password"]),
        ({"password": "x"}, ["only one of login and password"]),
        ({"extra": "abc"}, ["no JSON"]),
        ({"extra": "[1]"}, ["no JSON object"]),
        ({"extra": '{"prefix": "a"}'}, ["'prefix'", "it may have namespace"]),
        ({"extra": '{"cacert": 3}'}, ["cacert = 3; wanted text"]),
        ({"extra": '{"timeout": "soon"}'}, ["timeout = 'soon'; wanted a number"]),
        ({"host": "", "login": "ann", "extra": '{"x": 1}'}, ["no host", "only one", "'x'"]),
    ],
)
def test_what_is_wrong_with_a_connection_is_told_all_at_once(fields, told):
    with pytest.raises(ConfigError) as caught:
        place_of(connection(**fields))
    for text in told:
        assert text in str(caught.value)
    assert len(caught.value.problems) == (3 if len(told) == 3 else 1)


def test_empty_fields_of_the_form_mean_the_default():
    extra = json.dumps({"namespace": "", "cacert": None, "timeout": None, "lease_ttl": ""})
    assert place_of(connection(extra=extra, login="", password="")).configs == {}


def test_a_password_is_never_shown():
    place = place_of(connection(login="ann", password="hidden"))
    assert "hidden" not in repr(place)


def test_a_name_that_airflow_does_not_know_is_bad_configuration():
    with pytest.raises(ConfigError, match="'nobody', but Airflow has no connection"):
        connected("nobody")


def test_a_connection_of_another_type_is_bad_configuration(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WEB", "http://example.org")
    with pytest.raises(ConfigError, match="of type 'http'; wanted type 'etcd'"):
        connected("web")


def test_the_form_has_a_field_for_all_that_a_connection_may_say():
    (form,) = get_provider_info()["connection-types"]
    fields = form["conn-fields"]
    texts = {name: "x" for name, field in fields.items() if "string" in field["schema"]["type"]}
    numbers = {name: 1 for name, field in fields.items() if "number" in field["schema"]["type"]}
    assert texts.keys() | numbers.keys() == fields.keys()
    assert place_of(connection(extra=json.dumps(texts | numbers))).configs == texts | numbers


def test_airflow_shows_the_form_without_importing_the_hook():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    (form,) = get_provider_info()["connection-types"]
    for name, field in form["conn-fields"].items():
        shown = manager.connection_form_widgets[f"extra__etcd__{name}"].field
        assert shown["schema"]["title"] == field["label"]
    behaviour = manager.field_behaviours["etcd"]
    assert behaviour["relabeling"]["host"] == "Endpoints"


def test_airflow_makes_the_hook_of_the_connection(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MY_ETCD", '{"conn_type": "etcd", "host": "e0"}')
    hook = EtcdHook.get_connection("my_etcd").get_hook()
    assert isinstance(hook, EtcdHook)
    assert hook.get_conn().endpoint == "e0:2379"
