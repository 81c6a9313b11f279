"""Decides, from values alone and before the first worker starts, what could ruin a long run.

``airflow_provider.preflight.facts`` reads the values from Airflow and the machine. A fact that is
None is unknown, and nothing is said about it. This module may import only the standard library and
``llutil.time_budgets``.

The facts about Airflow are from its source (3.3.2), from its Celery provider (3.26) and from its
Kubernetes provider (10.25).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llutil.time_budgets import DEFAULT_GRACE_PERIOD, StopBudget

__all__ = ["Facts", "Finding", "Heartbeats", "Severity", "executor_of", "findings"]

DEFAULT_POD_GRACE = 30.0
"""Kubernetes' default for a pod's ``terminationGracePeriodSeconds``, in seconds."""

_SHORT_RUN = 600.0
"""A task that may run for at most so many seconds is not a long run."""


class Severity(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    """It is good to know, and nothing can be done about it."""
    WARNING = "warning"
    """It can end a run, prevent it from starting, or lose what it has done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the log: what was found, and what to do. ``of_deployment``: it holds for every
    task of this deployment, so that it need not be said to each of them.
    """

    severity: Severity
    text: str
    of_deployment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """What decides how long a task survives without its api-server; seconds, except for the counts.

    ``failures``, ``interval``, ``attempts`` and ``wait`` are ``max_failed_heartbeats``,
    ``min_heartbeat_interval``, ``execution_api_retries`` and ``execution_api_retry_wait_min`` of
    ``[workers]``. ``timeout`` is ``[scheduler] task_instance_heartbeat_timeout``. ``usual`` is how
    long an outage a task survives under Airflow's own defaults.
    """

    failures: int
    interval: float
    attempts: int
    wait: float
    timeout: float
    usual: float

    def fatal_outage(self, failures: int | None = None) -> float:
        """How long an api-server must refuse connections until a task ends, at the least; seconds.

        ``failures`` is the number of failed heartbeats that ends it, by default the configured one.
        A heartbeat fails after ``attempts`` requests, with a random wait of at least ``wait``
        between two.
        """
        heartbeat = max(0, self.attempts - 1) * self.wait
        count = self.failures if failures is None else failures
        return max(0, count - 1) * max(self.interval, heartbeat) + heartbeat

    def sufficient_failures(self) -> int | None:
        """The least ``failures`` with which a task survives as long as the scheduler waits; None if
        no number is enough, since heartbeats follow each other and fail without a wait.
        """
        if max(self.interval, (self.attempts - 1) * self.wait) <= 0 < self.timeout:
            return None
        step = max(self.interval, (self.attempts - 1) * self.wait, 1.0)
        count = max(1, int(self.timeout / step))
        while self.fatal_outage(count) < self.timeout:
            count += 1
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a task and of the place where it runs. Times are in seconds.

    ``executor`` is a class name. ``pod_grace`` is the grace period in the task's own
    ``executor_config``. ``rendezvous_timeout`` is how long the nodes of a job wait for each other;
    None if there is one node. ``visibility`` is how long Celery's broker waits for the end of a
    task before it delivers it again. ``forgets_folder`` is whether Airflow forgets the name of the
    job's folder of checkpoints once the task has succeeded. ``addresses`` are problems with this
    node's own address. ``siblings`` are the states of the nodes of this gang, ``pool`` is the pool
    of their slots.
    """

    executor: str | None = None
    grace_period: float = DEFAULT_GRACE_PERIOD
    pod_grace: float | None = None
    execution_timeout: float | None = None
    rendezvous_timeout: float | None = None
    visibility: float | None = None
    heartbeats: Heartbeats | None = None
    forgets_folder: bool = False
    addresses: Sequence[str] = ()
    node: int | None = None
    min_nodes: int = 1
    siblings: Mapping[int, str | None] | None = None
    pool: str = ""


def findings(facts: Facts) -> list[Finding]:
    """The findings that follow from ``facts``, in the order in which they are logged."""
    return [
        *_grace_findings(facts),
        *_redelivery_findings(facts),
        *_heartbeat_findings(facts),
        *_timeout_findings(facts),
        *_folder_findings(facts),
        *(Finding(Severity.WARNING, text) for text in facts.addresses),
        *_sibling_findings(facts),
    ]


def executor_of(named: str | None, configured: str, pod: bool) -> str:
    """The class name of the executor that runs a task.

    ``named`` is the task's ``executor``: an alias, a class or its path. ``configured`` is ``[core]
    executor``: a list of these, of which the first is the default; after semicolons come those of
    teams. ``pod`` says that the process is in a pod of KubernetesExecutor; a pod template may have
    changed the configuration there.
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


def _grace_findings(facts: Facts) -> list[Finding]:
    if facts.executor != "KubernetesExecutor":
        return []  # the agent's own session lets it survive its task by the whole grace period
    found = []
    granted = DEFAULT_POD_GRACE if facts.pod_grace is None else facts.pod_grace
    if granted < StopBudget(facts.grace_period).settled:
        source = (
            f"Kubernetes gives a pod {granted:g} s unless its template says more"
            if facts.pod_grace is None
            else f"the task's pod_override gives its pod {granted:g} s"
        )
        found.append(
            Finding(
                Severity.WARNING,
                f"grace_period is {facts.grace_period:g} s, but {source}: a pod that is evicted "
                "ends before a checkpoint is complete; give the task "
                f"executor_config=pod_override(grace_period={facts.grace_period:g}), from "
                "airflow_provider.kubernetes",
            )
        )
    found.append(
        Finding(
            Severity.NOTE,
            "under KubernetesExecutor the pod ends with its task: mark-failed, clear and lost "
            "heartbeats leave 5 s, whatever grace_period says; write checkpoints in between",
        )
    )
    return found


def _redelivery_findings(facts: Facts) -> list[Finding]:
    if facts.executor != "CeleryExecutor" or facts.visibility is None:
        return []
    longest = facts.execution_timeout
    if longest is not None and longest <= facts.visibility:
        return []
    runs = "has no execution_timeout" if longest is None else f"may run for {longest:g} s"
    text = (
        f"Celery's broker delivers a task a second time when it has run for {facts.visibility:g} "
        f"s, which can end the first run, and this task {runs}; set "
        "[celery_broker_transport_options] visibility_timeout to more than the longest run takes"
    )
    return [Finding(Severity.WARNING, text)]


def _heartbeat_findings(facts: Facts) -> list[Finding]:
    limits = facts.heartbeats
    short = facts.execution_timeout is not None and facts.execution_timeout <= _SHORT_RUN
    if limits is None or short or limits.fatal_outage() >= min(limits.timeout, limits.usual):
        return []
    enough = limits.sufficient_failures()
    text = (
        f"an api-server that is away for {limits.fatal_outage():g} s can end a task, which is less "
        f"than the {limits.usual:g} s of Airflow's defaults, while the scheduler would wait "
        f"{limits.timeout:g} s for it; "
    )
    text += (
        "set [workers] min_heartbeat_interval above 0"
        if enough is None
        else f"set [workers] max_failed_heartbeats, which is {limits.failures}, to {enough} or more"
    )
    return [Finding(Severity.WARNING, text, of_deployment=True)]


def _timeout_findings(facts: Facts) -> list[Finding]:
    longest, waiting = facts.execution_timeout, facts.rendezvous_timeout
    if longest is None or waiting is None or longest > waiting:
        return []
    return [
        Finding(
            Severity.WARNING,
            f"execution_timeout is {longest:g} s, and nodes may wait {waiting:g} s for each other: "
            "the task can end before its workers start; raise execution_timeout, or lower "
            "rdzv_configs['timeout']",
        )
    ]


def _folder_findings(facts: Facts) -> list[Finding]:
    if not facts.forgets_folder:
        return []
    text = (
        "[state_store] clear_on_success deletes a task's state when it succeeds, and with it the "
        "name of the job's folder below checkpoint_path: after a clear of a DAG run that has "
        "ended, a job that was stopped, or that has resume='always', begins at step 0; give the "
        "task a checkpoint_job, such as 'train-{{ run_id }}', or switch clear_on_success off"
    )
    return [Finding(Severity.WARNING, text)]


def _sibling_findings(facts: Facts) -> list[Finding]:
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
            f"{facts.min_nodes} of {len(facts.siblings)} nodes are needed, each with a slot of "
            f"pool {facts.pool!r}, whose free slots a task cannot see; "
            f"{others or 'there are no others'}",
        )
    ]
