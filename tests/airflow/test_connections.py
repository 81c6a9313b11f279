"""Connections to stores in a real Airflow: the form's data, the test button, and who gets to see
the password.
"""

from __future__ import annotations

import json

import pytest

from tests.airflow.client import Client, Run
from tests.airflow.conftest import Meeting, ZooKeeperMeeting

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]


@pytest.mark.parametrize(
    ("kind", "host", "own"),
    [("etcd", "Endpoints", "server_name"), ("zookeeper", "Servers", "chroot")],
)
def test_the_form_has_our_fields_and_names(client: Client, kind: str, host: str, own: str) -> None:
    (form,) = (
        form
        for form in client.ask("GET", "../../ui/connections/hook_meta")
        if form["connection_type"] == kind
    )
    assert form["standard_fields"]["host"]["title"] == host
    assert {"namespace", "cacert", "cert", "key", "timeout", own} <= form["extra_fields"].keys()


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


@pytest.mark.zookeeper
def test_the_test_button_tells_whether_zookeeper_can_be_used(
    client: Client, zookeeper_meeting: ZooKeeperMeeting
) -> None:
    body = {
        "connection_id": "tried",
        "conn_type": "zookeeper",
        "host": f"127.0.0.1:9,{zookeeper_meeting.store.endpoint}",
        "login": "gangs",
        "password": zookeeper_meeting.password,
        "extra": json.dumps({"chroot": zookeeper_meeting.chroot, "lease_ttl": 5}),
    }
    answer = client.ask("POST", "connections/test", json=body)
    assert answer["status"], answer
    assert "can be used" in answer["message"]
    for change, told in (
        ({"password": "wrong-password"}, "the user 'gangs' with this password may not do this"),
        ({"extra": json.dumps({"chroot": "/nowhere"})}, "has no chroot '/nowhere'"),
    ):
        answer = client.ask("POST", "connections/test", json=body | change)
        assert not answer["status"]
        assert told in answer["message"]


@pytest.mark.parametrize("run", ["troupe"], indirect=True)
def test_the_password_is_in_no_log_and_in_no_rendered_template(run: Run, meeting: Meeting) -> None:
    run.finish("success")
    _shows_no_password(run, "play", meeting)


def _shows_no_password(run: Run, task_id: str, meeting: Meeting | ZooKeeperMeeting) -> None:
    for node in (0, 1):
        task = run.task(task_id, node)
        facts = task.facts()
        assert facts["rendered_fields"]["rdzv_conn_id"] == meeting.conn_id
        assert meeting.password not in json.dumps(facts)
        assert meeting.password not in json.dumps(task.log())


@pytest.mark.zookeeper
@pytest.mark.parametrize("run", ["chorus"], indirect=True)
def test_a_gang_meets_through_zookeeper_by_a_connection_and_stays_in_its_chroot(
    run: Run, zookeeper_meeting: ZooKeeperMeeting
) -> None:
    run.finish("success")
    nodes = [run.task("sing", node).xcoms()["return_value"] for node in (0, 1)]
    assert [set(ranks) for ranks in nodes] == [{"0"}, {"1"}]
    values = [value for ranks in nodes for value in ranks.values()]
    assert {value["world_size"] for value in values} == {"2"}
    assert len({value["launch"] for value in values}) == 1
    _shows_no_password(run, "sing", zookeeper_meeting)
    marker, *more = [path for path in zookeeper_meeting.stored() if "chorus" in path]
    assert marker.endswith("/log/=000001.marker")
    assert more == []
