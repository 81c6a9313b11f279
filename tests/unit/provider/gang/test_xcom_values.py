"""What a node of a gang makes of an XCom value that is not what this version pushes."""

from __future__ import annotations

import json

import pytest

from airflow_provider.gang.ledger_notice import LedgerNotice
from airflow_provider.gang.node import SuccessNote
from airflow_provider.gang.version_check import NodeVersions

NOTE = SuccessNote(node=1, nodes=2, rerun_token="0@2026", ranks=(2, 3), world_size=4)
NOTICE = LedgerNotice(
    ti_id="an id", try_number=1, rerun_token="0@2026", endpoint="h:1", secret="s", machine="m"
)
VERSIONS = NodeVersions(
    node=1, rerun_token="0@2026", host="h", torch="2.13", python="3.11", launcher="0.1"
)
everything = pytest.mark.parametrize(
    "one", [NOTE, NOTICE, VERSIONS], ids=lambda one: type(one).__name__
)


def pushed(one):
    return json.loads(json.dumps(one.to_json()))


@everything
def test_what_was_pushed_is_read(one):
    assert type(one).of(pushed(one)) == one


@everything
def test_a_field_that_is_not_known_yet_is_ignored(one):
    assert type(one).of(pushed(one) | {"since": "a later version"}) == one


@everything
def test_another_version_is_nothing_that_could_be_read(one):
    assert type(one).of(pushed(one) | {"version": 2}) is None


@everything
@pytest.mark.parametrize("broken", ["is gone", None, [], {}])
def test_a_field_that_is_gone_or_of_another_kind_is_no_error(one, broken):
    for name in pushed(one).keys() - {"version"}:
        value = pushed(one)
        del value[name]
        if broken != "is gone":
            value[name] = broken
        found = type(one).of(value)
        assert found is None or (name, broken) == ("ranks", [])


@pytest.mark.parametrize("other", [None, 3, "x", {}, [], {"version": 1}])
@everything
def test_what_is_something_else_is_no_error(one, other):
    assert type(one).of(other) is None


@pytest.mark.parametrize("endpoint", ["", "h", "h:", "h:port"])
def test_a_notice_without_a_port_is_none(endpoint):
    assert LedgerNotice.of(pushed(NOTICE) | {"endpoint": endpoint}) is None
