"""What a preflight says, by what is known; each row is a deployment."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tenacity

from airflow_provider.preflight.findings import (
    Facts,
    Finding,
    Heartbeats,
    Severity,
    executor_of,
    findings,
)

DEFAULTS = Heartbeats(failures=3, interval=5, attempts=5, wait=1, timeout=300, usual=14)


def said(**facts):
    return [finding.text for finding in findings(Facts(**facts))]


def warned(**facts):
    return [one.text for one in findings(Facts(**facts)) if one.severity is Severity.WARNING]


def test_nothing_is_said_of_what_is_not_known():
    assert findings(Facts()) == []


@pytest.mark.parametrize(
    ("named", "configured", "pod", "found"),
    [
        (None, "LocalExecutor", False, "LocalExecutor"),
        (None, "CeleryExecutor,KubernetesExecutor", False, "CeleryExecutor"),
        ("KubernetesExecutor", "CeleryExecutor, KubernetesExecutor", False, "KubernetesExecutor"),
        (
            "gpu",
            "LocalExecutor,gpu:airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor",
            False,
            "KubernetesExecutor",
        ),
        ("gpu", "LocalExecutor,gpu:CeleryExecutor", False, "CeleryExecutor"),
        (None, "my.own.EdgeExecutor", False, "EdgeExecutor"),
        ("my.own.EdgeExecutor", "LocalExecutor,my.own.EdgeExecutor", False, "EdgeExecutor"),
        (None, "CeleryExecutor;team1=LocalExecutor", False, "CeleryExecutor"),
        (None, "", False, ""),
        # A pod template may name another one to the process in the pod.
        (None, "LocalExecutor", True, "KubernetesExecutor"),
    ],
)
def test_the_executor_is_found_by_alias_class_or_path(named, configured, pod, found):
    assert executor_of(named, configured, pod) == found


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor", "EdgeExecutor", "", None])
def test_where_the_agent_outlives_its_task_any_grace_period_will_do(executor):
    assert said(executor=executor, grace_period=3600) == []


@pytest.mark.parametrize(
    ("grace", "pod", "text"),
    [
        (30, None, "grace_period is 30 s, but Kubernetes gives a pod 30 s unless"),
        (25, None, None),
        (120, 60, "grace_period is 120 s, but the task's pod_override gives its pod 60 s"),
        (120, 124.9, "grace_period is 120 s, but the task's pod_override gives its pod 124.9 s"),
        (120, 125, None),
    ],
)
def test_a_pods_grace_has_to_have_room_for_the_jobs(grace, pod, text):
    found = warned(executor="KubernetesExecutor", grace_period=grace, pod_grace=pod)
    if text is None:
        assert found == []
    else:
        assert text in found[0]
        assert f"executor_config=pod_override(grace_period={grace})" in found[0]


def test_what_no_setting_of_a_pod_changes_is_a_note():
    (note,) = findings(Facts(executor="KubernetesExecutor", pod_grace=60))
    assert note.severity is Severity.NOTE
    assert "leave 5 s" in note.text


@pytest.mark.parametrize(
    ("longest", "visibility", "warns"),
    [
        (None, 86400, True),
        (86400, 86400, False),
        (86401, 86400, True),
        (None, None, False),
    ],
)
def test_a_run_longer_than_celerys_visibility_timeout_is_warned_of(longest, visibility, warns):
    found = warned(executor="CeleryExecutor", execution_timeout=longest, visibility=visibility)
    assert bool(found) == warns
    assert all("[celery_broker_transport_options] visibility_timeout" in text for text in found)


def test_the_broker_matters_under_celery_only():
    assert warned(executor="LocalExecutor", visibility=1) == []


@pytest.mark.parametrize(
    ("longest", "waited", "warns"),
    [(600, 900, True), (900, 900, True), (901, 900, False), (None, 900, False), (60, None, False)],
)
def test_a_task_that_ends_before_its_nodes_have_met_is_warned_of(longest, waited, warns):
    assert bool(warned(execution_timeout=longest, rendezvous_timeout=waited)) == warns


def test_limits_below_airflows_own_are_named_with_a_number_that_is_enough():
    (text,) = warned(heartbeats=replace(DEFAULTS, failures=2))
    assert "an api-server that is away for 9 s can end a task, which is less than the 14 s" in text
    assert "would wait 300 s" in text
    assert f"which is 2, to {DEFAULTS.sufficient_failures()} or more" in text
    enough = replace(DEFAULTS, failures=DEFAULTS.sufficient_failures(), usual=1000)
    assert warned(heartbeats=enough) == []


def test_a_default_airflow_has_nothing_to_be_told_of_its_heartbeats():
    assert DEFAULTS.fatal_outage() == DEFAULTS.usual
    assert warned(heartbeats=DEFAULTS) == []


def test_of_the_deployment_is_what_holds_for_every_task():
    facts = Facts(executor="CeleryExecutor", visibility=60, heartbeats=replace(DEFAULTS, wait=0))
    assert [one.of_deployment for one in findings(facts)] == [False, True]


def test_how_long_a_task_survives_is_reckoned_from_the_number_that_is_named():
    assert (
        DEFAULTS.fatal_outage(DEFAULTS.sufficient_failures() - 1)
        < 300
        <= DEFAULTS.fatal_outage(DEFAULTS.sufficient_failures())
    )


def test_a_task_that_is_over_soon_has_no_long_run_to_lose():
    worse = replace(DEFAULTS, failures=1)
    assert warned(heartbeats=worse, execution_timeout=600) == []
    assert warned(heartbeats=worse, execution_timeout=601)


@pytest.mark.parametrize("more", [{"attempts": 1, "wait": 5}, {"attempts": 9, "wait": 0}])
def test_heartbeats_without_any_wait_have_no_number_that_is_enough(more):
    limits = Heartbeats(failures=3, interval=0, timeout=60, usual=14, **more)
    assert limits.sufficient_failures() is None
    (text,) = warned(heartbeats=limits)
    assert text.endswith("set [workers] min_heartbeat_interval above 0")


def test_one_attempt_without_waits_is_possible():
    limits = Heartbeats(failures=1, interval=1, attempts=1, wait=0, timeout=60, usual=14)
    assert limits.fatal_outage() == 0
    assert limits.fatal_outage(limits.sufficient_failures()) >= 60


def test_no_heartbeat_fails_sooner_than_is_reckoned():
    """The wait is Airflow's own (``airflow.sdk.api.client``): tenacity's, random between two
    bounds.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random.seed(seed)
    wait = tenacity.wait_random_exponential(min=1.0, max=90.0)
    one = min(
        sum(wait(SimpleNamespace(attempt_number=number)) for number in range(1, 5))
        for _ in range(2000)
    )
    assert one >= DEFAULTS.fatal_outage(1)
    assert one < DEFAULTS.fatal_outage(1) * 1.5


def test_a_folder_whose_name_is_forgotten_after_success_is_warned_of_with_a_way_out():
    assert warned(forgets_folder=False) == []
    (text,) = warned(forgets_folder=True)
    assert text.startswith("[state_store] clear_on_success deletes a task's state")
    assert "begins at step 0" in text
    assert "give the task a checkpoint_job" in text


def test_siblings_are_told_with_the_pool_that_no_task_can_look_into():
    states = {0: "running", 1: "running", 2: "queued", 3: None}
    (found,) = findings(Facts(node=1, min_nodes=2, siblings=states, pool="gpu"))
    assert found == Finding(
        Severity.NOTE,
        "2 of 4 nodes are needed, each with a slot of pool 'gpu', whose free slots a task cannot "
        "see; node 0 is running, node 2 is queued, node 3 is not scheduled yet",
    )


def test_trouble_with_the_own_address_is_passed_on():
    assert warned(addresses=("no address",)) == ["no address"]
