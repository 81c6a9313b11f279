"""Connections of type ``etcd`` in a real Airflow: the form's data, the test button, and who gets to see the password."""

from __future__ import annotations

import json

import pytest

from tests.airflow.client import Client, Run
from tests.airflow.conftest import Meeting

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]


def test_the_form_has_our_fields_and_names(client: Client) -> None:
    (form,) = (
        form
        for form in client.ask("GET", "../../ui/connections/hook_meta")
        if form["connection_type"] == "etcd"
    )
    assert form["standard_fields"]["host"]["title"] == "Endpoints"
    assert {"namespace", "cacert", "cert", "key", "timeout"} <= form["extra_fields"].keys()


def test_the_test_button_tells_whether_etcd_can_be_used(client: Client, meeting: Meeting) -> None:
    body = {
        "connection_id": "tried",
        "conn_type": "etcd",
        "host": f"127.0.0.1:9,{meeting.store.endpoint}",
        "login": "gangs",
        "password": meeting.password,
        "extra": json.dumps({"namespace": "tests"}),
    }
    answer = client.ask("POST", "connections/test", json=body)
    assert answer["status"], answer
    assert "can be used" in answer["message"]
    answer = client.ask("POST", "connections/test", json=body | {"password": "wrong-password"})
    assert not answer["status"]
    assert "authentication failed" in answer["message"]


@pytest.mark.parametrize("run", ["troupe"], indirect=True)
def test_the_password_is_in_no_log_and_in_no_rendered_template(run: Run, meeting: Meeting) -> None:
    run.finish("success")
    for node in (0, 1):
        task = run.task("play", node)
        facts = task.facts()
        assert facts["rendered_fields"]["rdzv_conn_id"] == meeting.conn_id
        assert meeting.password not in json.dumps(facts)
        assert meeting.password not in json.dumps(task.log())
