"""DAGs whose jobs run until something ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any, NoReturn

import duties
from airflow.sdk import dag, task


def _forever() -> NoReturn:
    """Start a child, as a data loader is, and one in a session of its own; say so, and stay."""
    for own_session in (False, True):
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=own_session
        )
    print("everything runs", flush=True)
    while True:
        time.sleep(3600)


@dag(schedule=None)
def obedient() -> None:
    """Ends when asked: SIGTERM does what it does to any program."""

    @task.elastic(nproc_per_node=2)
    def job() -> None:
        _forever()

    job()


@dag(schedule=None)
def stubborn() -> None:
    """Has to be killed once the grace period is over."""

    @task.elastic(nproc_per_node=1, grace_period=6)
    def job() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _forever()

    job()


@dag(schedule=None)
def overdue() -> None:
    """Runs into Airflow's own time limit."""

    @task.elastic(
        nproc_per_node=1, grace_period=6, execution_timeout=timedelta(seconds=20), retries=0
    )
    def job() -> None:
        _forever()

    job()


@dag(schedule=None)
def bereft() -> None:
    """Loses its task process in the first try, and saves until the run is let go; the second must
    not begin meanwhile.
    """

    @task.elastic(nproc_per_node=1, grace_period=60, retries=1, retry_delay=timedelta(seconds=1))
    def job(run_id: str) -> str:
        if os.environ["AIRFLOW_CTX_TRY_NUMBER"] != "1":
            return "the second try"

        def save(*_: Any) -> NoReturn:
            duties.await_go(run_id)
            print("saved after the task was gone", flush=True)
            sys.exit(3)

        signal.signal(signal.SIGTERM, save)
        _forever()

    job()


@dag(schedule=None)
def saving() -> None:
    """Takes its time to save a checkpoint when it is asked to end, in its first try."""

    @task.elastic(nproc_per_node=1, grace_period=60, retries=1, retry_delay=timedelta(seconds=1))
    def job(run_id: str) -> str:
        if os.environ["AIRFLOW_CTX_TRY_NUMBER"] != "1":
            return "the second try"

        def leave(*_: Any) -> NoReturn:
            duties.save(run_id)
            sys.exit(3)

        signal.signal(signal.SIGTERM, leave)
        _forever()

    job()


@dag(schedule=None)
def forgotten() -> None:
    """Works on in its first try, whatever Airflow thinks of it."""

    @task.elastic(nproc_per_node=1, grace_period=1, retries=1)
    def job() -> str:
        if os.environ["AIRFLOW_CTX_TRY_NUMBER"] != "1":
            return "the second try"
        _forever()

    job()


obedient()
stubborn()
overdue()
bereft()
saving()
forgotten()
