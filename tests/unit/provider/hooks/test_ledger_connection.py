"""What connections of type ``etcd`` and ``zookeeper`` say, however they are stored; nothing is
connected to here.
"""

from __future__ import annotations

import json
import traceback

import pytest
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.get_provider_info import get_provider_info
from airflow_provider.hooks.etcd import EtcdHook
from airflow_provider.hooks.ledger_connection import settings_of
from airflow_provider.hooks.rendezvous_connection import connection_settings
from airflow_provider.hooks.zookeeper import ZooKeeperHook
from llutil.backends.options import Source
from llutil.errors import ConfigError, InfrastructureError

HOOKS = pytest.mark.parametrize("hook", [EtcdHook, ZooKeeperHook], ids=lambda hook: hook.conn_type)


def place(hook, **fields):
    values = {"conn_id": "c", "conn_type": hook.conn_type, "host": "e0"} | fields
    return settings_of(Connection(**values), hook.backend)


def form_of(hook):
    (form,) = (
        form
        for form in get_provider_info()["connection-types"]
        if form["connection-type"] == hook.conn_type
    )
    return form


@HOOKS
@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"host": "e0:1"}, "e0:1"),
        ({"host": "e0"}, "e0:{port}"),
        ({"host": "e0", "port": 4}, "e0:4"),
        ({"host": " e0:1, e1 ,e2:3,", "port": 4}, "e0:1,e1:4,e2:3"),
        ({"host": "[::1]:1,[::2]"}, "[::1]:1,[::2]:{port}"),
    ],
)
def test_hosts_are_endpoints_and_get_the_port_that_they_lack(hook, fields, endpoint):
    port = {"etcd": 2379, "zookeeper": 2181}[hook.conn_type]
    assert place(hook, **fields).endpoint == endpoint.format(port=port)


@pytest.mark.parametrize(
    ("host", "chroot", "endpoint"),
    [
        ("z0,z1:1", "/jobs/blue", "z0:2181,z1:1/jobs/blue"),
        ("z0,z1:1/jobs/blue", "", "z0:2181,z1:1/jobs/blue"),
        ("z0/jobs/", "jobs", "z0:2181/jobs"),
        ("z0", "/", "z0:2181"),
    ],
)
def test_a_chroot_stands_in_the_form_or_after_the_servers(host, chroot, endpoint):
    extra = json.dumps({"chroot": chroot})
    assert place(ZooKeeperHook, host=host, extra=extra).endpoint == endpoint


@HOOKS
@pytest.mark.parametrize("form", ["json", "uri"])
def test_several_hosts_and_options_come_from_the_environment(monkeypatch, hook, form):
    stored = {
        "json": json.dumps(
            {
                "conn_type": hook.conn_type,
                "host": "e0:1,e1:2",
                "login": "train",
                "password": "p@,:/word",
                "extra": {"namespace": "prod", "cacert": "/ca.pem", "timeout": 60},
            }
        ),
        "uri": f"{hook.conn_type}://train:p%40%2C%3A%2Fword@e0%3A1%2Ce1%3A2/"
        "?namespace=prod&cacert=%2Fca.pem&timeout=60",
    }
    monkeypatch.setenv("AIRFLOW_CONN_MY_STORE", stored[form])
    found = hook("my_store").get_conn()
    assert found == connection_settings("my_store")
    assert (found.backend, found.endpoint) == (hook.backend.name, "e0:1,e1:2")
    assert found.configs == {
        "user": "train",
        "password": "p@,:/word",
        "namespace": "prod",
        "cacert": "/ca.pem",
        "timeout": 60.0,
    }


@HOOKS
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": ""}, ["'c' has no host"]),
        ({"host": "https://e0:2379"}, ["without a scheme"]),
        ({"login": "ann"}, ["only one of login and password"]),
        ({"password": "x"}, ["only one of login and password"]),
        ({"extra": "abc"}, ["no JSON"]),
        ({"extra": "[1]"}, ["no JSON object"]),
        (
            {"extra": '{"prefix": "a"}'},
            ["'c' has 'prefix', which a connection of type", "it knows cacert, "],
        ),
        ({"extra": '{"cacert": 3}'}, ["'cacert': 3; wanted text"]),
        (
            {"extra": '{"timeout": "soon"}'},
            ["'timeout': 'soon'; wanted a positive number of seconds"],
        ),
        ({"host": "", "login": "ann", "extra": '{"x": 1}'}, ["no host", "only one", "'x'"]),
    ],
)
def test_what_is_wrong_with_a_connection_is_told_all_at_once(hook, fields, told):
    with pytest.raises(ConfigError) as caught:
        place(hook, **fields)
    for text in told:
        assert text in str(caught.value)
    assert len(caught.value.problems) == (3 if len(told) == 3 else 1)


def test_two_chroots_are_one_too_many():
    with pytest.raises(ConfigError, match="'c' has two chroots, '/a' and '/b'; give one"):
        place(ZooKeeperHook, host="z0/a", extra='{"chroot": "/b"}')


@pytest.mark.parametrize(
    ("hook", "name"),
    [(EtcdHook, "chroot"), (EtcdHook, "sasl_mechanism"), (ZooKeeperHook, "server_name")],
)
def test_what_the_other_store_knows_is_refused(hook, name):
    with pytest.raises(ConfigError, match=f"'{name}', which a connection of type"):
        place(hook, extra=json.dumps({name: "x"}))


@HOOKS
def test_empty_fields_of_the_form_mean_the_default(hook):
    extra = json.dumps({"namespace": "", "cacert": None, "timeout": None, "lease_ttl": ""})
    assert place(hook, extra=extra, login="", password="").configs == {}


@HOOKS
def test_a_password_is_never_shown(hook):
    assert "hidden" not in repr(place(hook, login="ann", password="hidden"))


@HOOKS
@pytest.mark.parametrize("wrong", [{"host": ""}, {"host": "ann:hidden@store:1"}, {"extra": "{"}])
def test_an_error_about_a_connection_does_not_show_its_password(monkeypatch, hook, wrong):
    fields = {"host": "e0", "login": "ann", "password": "hidden-word", **wrong}
    connection = Connection(conn_id="c", conn_type=hook.conn_type, **fields)
    found = classmethod(lambda *_: connection)
    monkeypatch.setattr("airflow.sdk.BaseHook.get_connection", found)
    with pytest.raises(ConfigError) as raised:
        connection_settings("c")
    told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    frames = [frame for frame in told.stack if frame.filename != __file__]
    assert {"connection_settings", "settings_of"} <= {frame.name for frame in frames}
    told.stack = traceback.StackSummary.from_list(frames)
    assert "hidden" not in "".join(told.format())


@pytest.fixture
def supervised(monkeypatch):
    """Gives this process a supervisor that answers each request with this error of Airflow's."""

    class Supervisor:
        def __init__(self, error, raises):
            self.answer = ErrorResponse(error=error)
            self.raises = raises

        def send(self, _):
            if self.raises:
                raise AirflowRuntimeError(self.answer)
            return self.answer

    def begin(error, *, raises=False):
        supervisor = Supervisor(error, raises)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

    return begin


def test_a_name_that_airflow_does_not_know_is_bad_configuration():
    with pytest.raises(ConfigError, match="'nobody', but Airflow has no connection"):
        connection_settings("nobody")


@pytest.mark.parametrize("raises", [False, True])
def test_a_name_that_airflows_api_does_not_know_is_bad_configuration(supervised, raises):
    supervised(ErrorType.CONNECTION_NOT_FOUND, raises=raises)
    with pytest.raises(ConfigError, match="'nobody', but Airflow has no connection"):
        connection_settings("nobody")


UNKNOWN = "'store', and Airflow does not say whether there is such a connection"


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    "error", [ErrorType.API_SERVER_ERROR, ErrorType.GENERIC_ERROR, ErrorType.PERMISSION_DENIED]
)
def test_a_connection_that_cannot_be_looked_up_now_is_no_bad_configuration(
    supervised, error, raises
):
    supervised(error, raises=raises)
    with pytest.raises(InfrastructureError, match=UNKNOWN):
        connection_settings("store")


def test_a_connection_that_another_secrets_backend_may_have_is_not_called_missing(
    supervised, monkeypatch
):
    class Vault:
        def get_connection(self, conn_id):
            raise TimeoutError

    backends = "airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded"
    monkeypatch.setattr(backends, lambda: [Vault()])
    supervised(ErrorType.CONNECTION_NOT_FOUND)
    with pytest.raises(InfrastructureError, match=f"{UNKNOWN}: it found none, but"):
        connection_settings("store")


def test_a_secrets_backend_that_cannot_be_made_is_no_bad_configuration(monkeypatch):
    def fail(*_):
        raise RuntimeError("no answer from the vault")

    monkeypatch.setattr(BaseHook, "get_connection", fail)
    with pytest.raises(InfrastructureError, match=f"{UNKNOWN}: RuntimeError: no answer"):
        connection_settings("store")


def test_a_uri_in_place_of_a_connections_name_does_not_show_its_password():
    with pytest.raises(ConfigError, match="'\\*\\*\\*@host:1', but Airflow has no") as raised:
        connection_settings("etcd://root:hidden@host:1")
    assert "hidden" not in str(raised.value)


def test_a_connection_of_another_type_is_bad_configuration(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WEB", "http://example.org")
    with pytest.raises(ConfigError, match="of type 'http'; wanted type 'etcd' or 'zookeeper'"):
        connection_settings("web")


@HOOKS
def test_the_form_has_a_field_for_all_that_a_connection_may_say(hook):
    fields = form_of(hook)["conn-fields"]
    texts = {name: "x" for name, field in fields.items() if "string" in field["schema"]["type"]}
    numbers = {name: 1 for name, field in fields.items() if "number" in field["schema"]["type"]}
    assert texts.keys() | numbers.keys() == fields.keys()
    assert all(field["label"] and field["description"] for field in fields.values())
    found = place(hook, extra=json.dumps(texts | numbers))
    configs = dict(texts | numbers)
    chroot = configs.pop("chroot", "")
    assert found.configs == configs
    assert found.endpoint.endswith(f"/{chroot}" if chroot else "9")
    login = {option.key for option in hook.backend.options if option.source is not Source.EXTRA}
    assert login == {"user", "password"}
    assert configs.keys() | login == {option.key for option in hook.backend.options}


@HOOKS
def test_airflow_shows_the_form_without_importing_the_hook(hook):
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    form = form_of(hook)
    for name, field in form["conn-fields"].items():
        shown = manager.connection_form_widgets[f"extra__{hook.conn_type}__{name}"].field
        assert shown["schema"]["title"] == field["label"]
    behaviour = manager.field_behaviours[hook.conn_type]
    assert behaviour["relabeling"]["login"] == "User"


@HOOKS
def test_airflow_makes_the_hook_of_the_connection(monkeypatch, hook):
    stored = json.dumps({"conn_type": hook.conn_type, "host": "e0:1"})
    monkeypatch.setenv("AIRFLOW_CONN_MY_STORE", stored)
    made = hook.get_connection("my_store").get_hook()
    assert isinstance(made, hook)
    assert made.get_conn().endpoint == "e0:1"
