"""What a task's pod needs under KubernetesExecutor, as the ``executor_config`` of an operator.

    @task.elastic(nproc_per_node=8, executor_config=pod_override(gpus=8, shared_memory="16Gi"))
    def train(): ...

The package ``kubernetes`` is imported when ``pod_override`` is called, that is, when a DAG that
uses it is parsed. KubernetesExecutor needs that package in any case. This module does not talk to a
cluster.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from llutil.errors import ConfigError, Problem
from llutil.time_budgets import DEFAULT_GRACE_PERIOD, StopBudget

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

__all__ = ["pod_override"]

# The name that KubernetesExecutor gives the container that runs the task.
_CONTAINER = "base"
_SHM = "/dev/shm"  # noqa: S108 - processes share memory through it
_VOLUME = "elastic-launch-shm"


def pod_override(
    *,
    grace_period: float = DEFAULT_GRACE_PERIOD,
    shared_memory: str | None = "2Gi",
    gpus: int = 0,
    gpu_resource: str = "nvidia.com/gpu",
    pod: k8s.V1Pod | None = None,
) -> dict[str, Any]:
    """An ``executor_config`` whose pod lets a job save its state, share memory and find its GPUs.

    KubernetesExecutor merges it with the pod of its template (provider 10.25). What is not given
    here stays as the template has it, and volumes are added. But the ``resources`` of a container
    replace those of the template as a whole: with ``gpus``, give the CPUs and the memory of the
    task by ``pod`` too.

    :param grace_period: the operator's ``grace_period``, in seconds; the pod gets what the
        agent and the task may need after that.
    :param shared_memory: the size of /dev/shm. It is memory, and counts towards the container's
        memory limit. Without it a pod has 64 MiB, too little for NCCL and for data loaders. None
        leaves it as it is.
    :param gpus: GPUs of the pod, as a limit, which Kubernetes takes for the request too; 0 asks for
        none.
    :param gpu_resource: the name that the cluster has for GPUs.
    :param pod: a pod of your own to add this to; it is not changed.

    :raises ConfigError: a value is not possible, or the pod has another value for the same thing.
    :raises ModuleNotFoundError: the package ``kubernetes`` is not installed.
    """
    from kubernetes.client import models as k8s

    problems = _problems(grace_period, shared_memory, gpus)
    if problems:
        raise ConfigError(problems)
    made = k8s.V1Pod() if pod is None else copy.deepcopy(pod)
    made.spec = made.spec or k8s.V1PodSpec(containers=[])
    container = _container(made.spec, k8s)
    wanted = math.ceil(StopBudget(grace_period).pod)
    given = made.spec.termination_grace_period_seconds
    if given is None:
        made.spec.termination_grace_period_seconds = wanted
    elif given < wanted:
        problems.append(
            f"the pod's termination_grace_period_seconds is {given}, and a grace_period of "
            f"{grace_period:g} s needs {wanted}; raise it, or leave it out"
        )
    if shared_memory is not None:
        problems += _share(made.spec, container, shared_memory, k8s)
    if gpus:
        problems += _ask_for(container, gpu_resource, str(gpus), k8s)
    if problems:
        raise ConfigError(problems)
    return {"pod_override": made}


def _problems(grace_period: Any, shared_memory: Any, gpus: Any) -> list[str | Problem]:
    problems: list[str | Problem] = []
    if not isinstance(grace_period, int | float) or not 0 <= grace_period < math.inf:
        problems.append(Problem("grace_period", f"is {grace_period!r}; wanted 0 or more seconds"))
    if not isinstance(shared_memory, str | None) or shared_memory == "":
        text = (
            f"is {shared_memory!r}; wanted a size as Kubernetes writes it, such as '2Gi', or None"
        )
        problems.append(Problem("shared_memory", text))
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 0:
        problems.append(Problem("gpus", f"is {gpus!r}; wanted a number of GPUs, or 0"))
    return problems


def _container(spec: k8s.V1PodSpec, k8s: Any) -> k8s.V1Container:
    """The task's own container in ``spec``; it is added if it is missing.

    The executor then merges it with the template's first container.
    """
    spec.containers = spec.containers or []
    if spec.containers and spec.containers[0].name == _CONTAINER:
        return spec.containers[0]
    if any(one.name == _CONTAINER for one in spec.containers):
        raise ConfigError(
            f"the pod's container {_CONTAINER!r} is not its first one; KubernetesExecutor runs the "
            "task in the first"
        )
    spec.containers.insert(0, k8s.V1Container(name=_CONTAINER))
    return spec.containers[0]


def _share(spec: k8s.V1PodSpec, container: k8s.V1Container, size: str, k8s: Any) -> list[str]:
    if any(mount.mount_path == _SHM for mount in container.volume_mounts or []):
        return [
            f"the pod already mounts something at {_SHM}; leave that out, or give "
            "shared_memory=None"
        ]
    source = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=size)
    volume = k8s.V1Volume(name=_VOLUME, empty_dir=source)
    mount = k8s.V1VolumeMount(name=_VOLUME, mount_path=_SHM)
    spec.volumes = [*(spec.volumes or []), volume]
    container.volume_mounts = [*(container.volume_mounts or []), mount]
    return []


def _ask_for(container: k8s.V1Container, resource: str, count: str, k8s: Any) -> list[str]:
    resources = container.resources = container.resources or k8s.V1ResourceRequirements()
    given = (resources.limits or {}).get(resource)
    if given is not None and str(given) != count:
        return [
            f"the pod's container has a limit of {given} {resource}, and gpus is {count}; give "
            "only one of them"
        ]
    resources.limits = {**(resources.limits or {}), resource: count}
    return []
