"""What would ruin a long run, said before the first worker starts: decided from values alone.

``airflow_provider.preflight.facts`` reads the values from Airflow and the host. A fact that is None
is not known, and nothing is said about it. This module imports nothing but the standard library.

The facts of Airflow are those of its source (3.3.2), of its Celery provider (3.26) and its
Kubernetes provider (10.25).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Facts", "Finding", "Heartbeats", "Severity", "executor_of", "findings"]

POD_GRACE = 30.0
"""Seconds that Kubernetes gives a pod to end, if nobody says otherwise
(terminationGracePeriodSeconds).
"""

ENDING = 5.0
"""Seconds that an agent and its task need, beyond the grace period, to end the job's processes and
to report.
"""

_SHORT = 600.0  # seconds: a task that may not run for longer is no long run


class Severity(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    """Good to know, and nothing to do about."""
    WARNING = "warning"
    """Ends a run that could have gone on, or keeps it from starting, if things go as they sometimes
    do.
    """


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the log: what was found, and what to do."""

    weight: Severity
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """What decides how long a task lives on without its api-server; seconds, but for the counts.

    ``failures`` is ``[workers] max_failed_heartbeats``, ``interval`` ``min_heartbeat_interval``,
    ``attempts`` and ``wait`` ``execution_api_retries`` and ``execution_api_retry_wait_min``;
    ``patience`` is ``[scheduler] task_instance_heartbeat_timeout``.
    """

    failures: int
    interval: float
    attempts: int
    wait: float
    patience: float

    def outlived(self, failures: int | None = None) -> float:
        """The shortest time away of an api-server, refusing connections, that ends a task.

        A heartbeat fails after ``attempts`` requests with a random wait between two of them,
        ``wait`` at least.
        """
        one = max(0, self.attempts - 1) * self.wait
        count = self.failures if failures is None else failures
        return max(0, count - 1) * max(self.interval, one) + one

    def enough(self) -> int:
        """The least number of failures with which the scheduler's patience is over first."""
        step = max(self.interval, (self.attempts - 1) * self.wait, 1.0)
        count = max(1, int(self.patience / step))
        while self.outlived(count) < self.patience:
            count += 1
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a task and of where it runs. Times are seconds.

    ``executor`` is a class name. ``pod_grace`` is what the task's own ``executor_config`` says.
    ``rendezvous_timeout`` is how long nodes wait for each other, of a job that has several.
    ``visibility`` is how long Celery's broker waits for the end of a task before it delivers it
    again. ``addresses`` are problems with this node's own address. ``siblings`` are what Airflow
    says of the nodes of this gang, ``pool`` where they take their slots from.
    """

    executor: str | None = None
    grace_period: float = 30.0
    pod_grace: float | None = None
    execution_timeout: float | None = None
    rendezvous_timeout: float | None = None
    visibility: float | None = None
    heartbeats: Heartbeats | None = None
    addresses: Sequence[str] = ()
    node: int | None = None
    min_nodes: int = 1
    siblings: Mapping[int, str | None] | None = None
    pool: str = ""


def findings(facts: Facts) -> list[Finding]:
    """What would ruin a long run, by ``facts``; in the order in which it is told."""
    return [
        *_grace(facts),
        *_delivery(facts),
        *_heartbeats(facts),
        *_timeouts(facts),
        *(Finding(Severity.WARNING, text) for text in facts.addresses),
        *_siblings(facts),
    ]


def executor_of(named: str | None, configured: str, pod: bool) -> str:
    """The class name of the executor that runs a task.

    ``named`` is the task's ``executor``: an alias, a class or its path; ``configured`` is ``[core]
    executor``: a list of these, of which the first one is the default, and after semicolons those
    of teams. ``pod``: the process is in a pod that KubernetesExecutor has made, where a pod
    template may have changed the configuration.
    """
    if pod:
        return "KubernetesExecutor"
    entries = configured.partition(";")[0].strip("= ").split(",")
    listed: dict[str, str] = {}
    for entry in entries:
        alias, _, path = entry.strip().rpartition(":")
        name = path.rpartition(".")[2]
        listed |= dict.fromkeys(filter(None, (alias, path, name)), name)
    if named is None:
        return next(iter(listed.values()), "")
    return listed.get(named, named.rpartition(".")[2])


def _grace(facts: Facts) -> list[Finding]:
    if facts.executor != "KubernetesExecutor":
        # The agent is in a session of its own, and outlives its task by the whole grace period.
        return []
    found = []
    granted = POD_GRACE if facts.pod_grace is None else facts.pod_grace
    if granted < facts.grace_period + ENDING:
        whose = (
            f"Kubernetes gives a pod {granted:g} s unless its template says more"
            if facts.pod_grace is None
            else f"the task's pod_override gives its pod {granted:g} s"
        )
        found.append(
            Finding(
                Severity.WARNING,
                f"grace_period is {facts.grace_period:g} s, but {whose}: a pod that is evicted "
                "ends before a checkpoint "
                "is complete; give the task executor_config=pod_override(grace_period="
                f"{facts.grace_period:g}), from airflow_provider.kubernetes",
            )
        )
    found.append(
        Finding(
            Severity.NOTE,
            "under KubernetesExecutor the pod ends with its task: mark-failed, clear and lost "
            "heartbeats leave 5 s, "
            "whatever grace_period says; write checkpoints in between",
        )
    )
    return found


def _delivery(facts: Facts) -> list[Finding]:
    if facts.executor != "CeleryExecutor" or facts.visibility is None:
        return []
    longest = facts.execution_timeout
    if longest is not None and longest <= facts.visibility:
        return []
    runs = "has no execution_timeout" if longest is None else f"may run for {longest:g} s"
    text = (
        f"Celery's broker delivers a task a second time that has run for {facts.visibility:g} s, "
        "which can end the first, "
        f"and this one {runs}; set [celery_broker_transport_options] visibility_timeout to more "
        "than the longest run takes"
    )
    return [Finding(Severity.WARNING, text)]


def _heartbeats(facts: Facts) -> list[Finding]:
    limits = facts.heartbeats
    short = facts.execution_timeout is not None and facts.execution_timeout <= _SHORT
    if limits is None or short or limits.outlived() >= limits.patience:
        return []
    return [
        Finding(
            Severity.WARNING,
            f"an api-server that is away for {limits.outlived():g} s can end this task, while the "
            "scheduler would wait "
            f"{limits.patience:g} s for it; set [workers] max_failed_heartbeats, which is "
            f"{limits.failures}, to "
            f"{limits.enough()} or more",
        )
    ]


def _timeouts(facts: Facts) -> list[Finding]:
    longest, waited = facts.execution_timeout, facts.rendezvous_timeout
    if longest is None or waited is None or longest > waited:
        return []
    return [
        Finding(
            Severity.WARNING,
            f"execution_timeout is {longest:g} s, and nodes may wait {waited:g} s for each other: "
            "the task can end "
            "before its workers start; raise execution_timeout, or lower rdzv_configs['timeout']",
        )
    ]


def _siblings(facts: Facts) -> list[Finding]:
    if facts.siblings is None:
        return []
    others = ", ".join(
        f"node {number} is {state or 'not scheduled yet'}"
        for number, state in facts.siblings.items()
        if number != facts.node
    )
    return [
        Finding(
            Severity.NOTE,
            f"{facts.min_nodes} of {len(facts.siblings)} nodes are needed, with slots of pool "
            f"{facts.pool!r}, whose free "
            f"ones no task can see; {others or 'there are no others'}",
        )
    ]
