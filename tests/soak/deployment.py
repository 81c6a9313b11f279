"""What is soaked: a real Airflow with two Celery workers as two hosts, and the store through which
gangs meet.

Each worker, and each of the three members of an etcd or a ZooKeeper, is a host of its own in a
network (see ``tests.support.networks``). PostgreSQL, Redis, scheduler, api-server and DAG processor
are on this machine, which is in the network too. All of Airflow's processes are revived when they
end, as a service manager does it. Checkpoints are on a small disk that both workers share.

This module may import nothing but the standard library, ``tests.support`` and ``tests.airflow``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tests.airflow.deployments import celery, celery_worker
from tests.airflow.server import AIRFLOW, Airflow, airflow
from tests.airflow.services import services
from tests.airflow.warm_agents import have_agents_forked
from tests.support.etcd_servers import EtcdServer, etcd_cluster
from tests.support.networks import Host, Network, network
from tests.support.undo import undone
from tests.support.zookeeper_servers import ZooKeeperServer, zookeeper_ensemble

__all__ = ["MARK", "Deployment", "Ledger", "deployment"]

MARK = "SOAK"
"""The variable that all processes of the soak's jobs have, with the soak's own value."""
NAMESPACE = "soak"
_DAGS = Path(__file__).parent / "dags"
_WORKERS = ("worker-0", "worker-1")
_MEMBERS = ("store-0", "store-1", "store-2")
_AT_A_TIME = 6  # tasks of a worker
_DISK = "24m"
_CALM = ("--heartbeat-interval", "100", "--election-timeout", "1000")
"""etcd's own defaults: this machine is too busy for shorter ones."""


class Ledger(StrEnum):
    """Where gangs meet."""

    ETCD = "etcd"
    SERVED = "served"
    ZOOKEEPER = "zookeeper"


Member = EtcdServer | ZooKeeperServer


@dataclass(frozen=True, slots=True)
class Deployment:
    """All of it, running. ``checkpoints`` is the small disk; ``members`` are those of the store, if
    there is one.
    """

    folder: Path
    mark: str
    network: Network
    server: Airflow
    members: list[Member]
    checkpoints: Path

    @property
    def workers(self) -> list[Host]:
        """The hosts that run tasks."""
        return [self.network.hosts[name] for name in _WORKERS]

    def pid(self, component: str) -> int:
        """The process of a component of Airflow."""
        return int((self.server.home / f"{component}.pid").read_text())


@contextmanager
def deployment(folder: Path, ledger: Ledger) -> Iterator[Deployment]:
    """Everything, ready, for as long as the context lasts. What it writes is below ``folder``.

    :raises NetworkError: this machine cannot have such a network.
    :raises RuntimeError: a part of it did not start; with its log.
    """
    names = _WORKERS if ledger is Ledger.SERVED else (*_WORKERS, *_MEMBERS)
    home, checkpoints = folder / "airflow", folder / "checkpoints"
    with ExitStack() as stack:
        net = stack.enter_context(network(folder / "hosts", names))
        checkpoints.mkdir()
        stack.enter_context(undone([["umount", "--lazy", str(checkpoints)]]))
        disk = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(checkpoints)]
        subprocess.run(disk, check=True)
        members = stack.enter_context(_store(ledger, net))
        found = stack.enter_context(services(net.address))
        base = celery(0, _AT_A_TIME, found)
        settings = {
            **base.settings,
            MARK: net.name,
            "SOAK_CONNECTION": "" if ledger is Ledger.SERVED else "soak_store",
            # As the preflight advises: a task outlives an api-server that is started again. Airflow
            # asks again for 8 s by default, and a result that cannot be pushed for so long is lost.
            "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "61",
            "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
            # A task whose worker is cut off is given up after so many seconds.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            # A scheduler does so only for tasks that it has queued, or has adopted from one that it
            # takes for dead; by default it looks for these every 300 s.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        }
        whole = replace(base, settings=settings, commands=_commands(home, net))
        server = stack.enter_context(
            airflow(
                home,
                {"soak": _DAGS},
                host=net.address,
                remove=False,
                deployment=whole,
                revived=True,
            )
        )
        if members:
            server.client.ask("POST", "connections", json=_connection(ledger, members))
        yield Deployment(folder, net.name, net, server, members, checkpoints)


@contextmanager
def _store(ledger: Ledger, net: Network) -> Iterator[list[Member]]:
    hosts = [net.hosts[name] for name in _MEMBERS if name in net.hosts]
    if ledger is Ledger.SERVED:
        yield []
    elif ledger is Ledger.ETCD:
        with etcd_cluster(*_CALM, inside=hosts) as servers:
            yield [*servers]
    else:
        with zookeeper_ensemble(inside=hosts) as ensemble:
            yield [*ensemble]


def _commands(home: Path, net: Network) -> dict[str, list[str]]:
    """Of the processes in the workers' hosts: a worker, and one with torch imported that its agents
    are forked from.
    """
    commands = {}
    for number, name in enumerate(_WORKERS):
        python = f"python-{number}"
        worker = ["env", f"LLUTIL_TEST_WARM_PYTHON={python}", AIRFLOW, *celery_worker(name)]
        commands[name] = net.hosts[name].command(worker)
        commands[python] = net.hosts[name].command(have_agents_forked(home, python))
    return commands


def _connection(ledger: Ledger, members: list[Member]) -> dict[str, str]:
    return {
        "connection_id": "soak_store",
        "conn_type": str(ledger),
        "host": ",".join(str(member.endpoint) for member in members),
        "extra": json.dumps({"namespace": NAMESPACE}),
    }
