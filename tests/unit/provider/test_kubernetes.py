"""The pod that KubernetesExecutor is asked for; no cluster is needed to see what it says."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from airflow_provider.kubernetes import pod_override
from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.preflight.findings import Facts, Severity, findings
from llutil.errors import ConfigError


def plain(config):
    """The pod as Kubernetes' API gets it."""
    return ApiClient().sanitize_for_serialization(config["pod_override"])


def test_a_pod_has_time_to_end_and_memory_to_share():
    assert plain(pod_override()) == {
        "spec": {
            "containers": [
                {
                    "name": "base",
                    "volumeMounts": [{"mountPath": "/dev/shm", "name": "elastic-launch-shm"}],
                }
            ],
            "terminationGracePeriodSeconds": 95,
            "volumes": [
                {
                    "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"},
                    "name": "elastic-launch-shm",
                }
            ],
        }
    }


def test_gpus_are_a_limit_under_the_clusters_own_name():
    pod = plain(pod_override(gpus=8, gpu_resource="amd.com/gpu", shared_memory=None))
    assert pod["spec"]["containers"] == [
        {"name": "base", "resources": {"limits": {"amd.com/gpu": "8"}}}
    ]
    assert "volumes" not in pod["spec"]


def test_a_pod_of_the_users_own_is_kept_and_not_changed():
    own = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(labels={"team": "vision"}),
        spec=k8s.V1PodSpec(
            node_selector={"gpu": "h100"},
            termination_grace_period_seconds=600,
            containers=[
                k8s.V1Container(
                    name="base",
                    image="train:1",
                    resources=k8s.V1ResourceRequirements(
                        limits={"memory": "64Gi"}, requests={"cpu": "8"}
                    ),
                    volume_mounts=[k8s.V1VolumeMount(name="data", mount_path="/data")],
                ),
                k8s.V1Container(name="sidecar", image="logs:1"),
            ],
            volumes=[k8s.V1Volume(name="data")],
        ),
    )
    before = own.to_dict()
    pod = plain(pod_override(gpus=1, grace_period=120, pod=own))
    assert own.to_dict() == before
    assert pod["metadata"] == {"labels": {"team": "vision"}}
    spec = pod["spec"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["terminationGracePeriodSeconds"] == 600
    base, sidecar = spec["containers"]
    assert sidecar == {"name": "sidecar", "image": "logs:1"}
    assert base["image"] == "train:1"
    assert base["resources"] == {
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "8"},
    }
    assert [mount["mountPath"] for mount in base["volumeMounts"]] == ["/data", "/dev/shm"]
    assert [volume["name"] for volume in spec["volumes"]] == ["data", "elastic-launch-shm"]


def test_a_pod_with_sidecars_alone_gets_the_tasks_container_in_front():
    own = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="sidecar")]))
    names = [one["name"] for one in plain(pod_override(pod=own))["spec"]["containers"]]
    assert names == ["base", "sidecar"]


def base(**fields):
    return k8s.V1PodSpec(containers=[k8s.V1Container(name="base", **fields)])


@pytest.mark.parametrize(
    ("spec", "parameters", "text"),
    [
        (None, {"grace_period": -1}, "grace_period is -1; wanted 0 or more seconds"),
        (None, {"gpus": True}, "gpus is True; wanted a number of GPUs"),
        (None, {"shared_memory": ""}, "shared_memory is ''; wanted a size"),
        (
            k8s.V1PodSpec(containers=[], termination_grace_period_seconds=20),
            {},
            "termination_grace_period_seconds is 20, and a grace_period of 30 s needs 95",
        ),
        (
            base(volume_mounts=[k8s.V1VolumeMount(name="mine", mount_path="/dev/shm")]),
            {},
            "already mounts something at /dev/shm",
        ),
        (
            base(resources=k8s.V1ResourceRequirements(limits={"nvidia.com/gpu": 2})),
            {"gpus": 1},
            "has a limit of 2 nvidia.com/gpu, and gpus is 1",
        ),
        (
            k8s.V1PodSpec(
                containers=[k8s.V1Container(name="sidecar"), k8s.V1Container(name="base")]
            ),
            {},
            "'base' is not its first one",
        ),
    ],
)
def test_what_cannot_be_is_refused(spec, parameters, text):
    pod = None if spec is None else k8s.V1Pod(spec=spec)
    with pytest.raises(ConfigError, match=text):
        pod_override(pod=pod, **parameters)


@pytest.mark.parametrize("grace", [0, 0.5, 30, 3600])
def test_no_preflight_complains_of_a_pod_that_was_made_here(grace):
    pod = pod_override(grace_period=grace)["pod_override"]
    facts = Facts(
        executor="KubernetesExecutor",
        grace_period=grace,
        pod_grace=pod.spec.termination_grace_period_seconds,
    )
    assert [one for one in findings(facts) if one.severity is Severity.WARNING] == []


def test_gangs_and_tasks_take_it_as_their_executor_config():
    with DAG("d") as dag:
        ElasticLaunchOperator(task_id="one", entrypoint="x.py", executor_config=pod_override())
        ElasticLaunchOperator.gang(
            task_id="many",
            nodes=2,
            entrypoint="x.py",
            rdzv_conn_id="c",
            executor_config=pod_override(gpus=1),
        )
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    for task in stored.tasks:
        assert task.executor_config["pod_override"].spec.termination_grace_period_seconds == 95
