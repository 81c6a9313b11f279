"""The notice of a gang's node 0, which serves the job's ledger: when its siblings use it."""

from __future__ import annotations

import json

import pytest

from airflow_provider.gang.ledger_notice import LedgerNotice, Try, Wait, launch_is_over, look
from llutil.errors import ConfigError
from llutil.system.addresses import machine_id

TOKEN = "0@2026"
HERE = machine_id()


def notice(endpoint="10.0.0.1:5000", machine=HERE, **fields):
    given = {"ti_id": "an id", "try_number": 1, "rerun_token": TOKEN, "secret": "secret"} | fields
    return LedgerNotice(endpoint=endpoint, machine=machine, **given)


@pytest.mark.parametrize(
    ("state", "found", "kind"),
    [
        ("running", notice(), Try),
        ("running", None, Wait),
        # Whatever lies there then is of an earlier try.
        *[(state, notice(), Wait) for state in (None, "scheduled", "queued", "up_for_retry")],
        *[(state, notice(), Wait) for state in ("restarting", "up_for_reschedule", "success")],
        # A node that was cleared meanwhile, or was not, joins the one that runs.
        ("running", notice(rerun_token="1@2026"), Try),
        ("running", notice("127.0.0.1:5000"), Try),
        ("running", notice("[::1]:5000"), Try),
        ("running", notice("10.0.0.1:5000", machine="another"), Try),
    ],
)
def test_a_notice_counts_while_airflow_says_that_its_node_runs(state, found, kind):
    assert type(look(state, found, HERE)) is kind


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5000", "[::1]:5000", "localhost:5000"])
def test_a_loopback_address_of_another_machine_is_an_error_that_says_what_to_do(endpoint):
    with pytest.raises(
        ConfigError, match=r"loopback address.*execution_api_server_url.*local_addr"
    ):
        look("running", notice(endpoint, machine="another"), HERE)


def test_who_waits_for_node_0_is_told_what_airflow_says_of_it():
    assert look(None, None, HERE) == Wait("node 0 is not scheduled yet")
    assert look("queued", None, HERE) == Wait("node 0 is queued")
    assert "has not said yet" in look("running", None, HERE).why


def test_a_notice_survives_xcom_and_shows_no_secret():
    one = notice("[fe80::1]:5000", secret="hidden")
    assert LedgerNotice.of(json.loads(json.dumps(one.to_json()))) == one
    assert one.address == ("fe80::1", 5000)
    assert "hidden" not in repr(one)


@pytest.mark.parametrize(
    ("state", "current", "why"),
    [
        ("running", notice(), None),
        # The next try has begun, or has said where it serves; or the same one was launched again.
        ("running", None, "runs again, and that ledger is over"),
        ("running", notice(ti_id="another id", try_number=2, secret="new"), "runs again"),
        ("running", notice("10.0.0.1:5001", secret="new"), "runs again"),
        ("up_for_retry", notice(), "is up_for_retry now"),
        ("restarting", notice(), "is restarting now"),
        ("failed", notice(), "is failed now"),
        (None, None, "is not scheduled now"),
    ],
)
def test_the_launch_that_serves_is_over_when_airflow_says_so_or_another_one_serves(
    state, current, why
):
    found = launch_is_over(state, notice(), current)
    if why is None:
        assert found is None
    else:
        assert found.startswith("node 0, which served the job's ledger at 10.0.0.1:5000, ")
        assert why in found
