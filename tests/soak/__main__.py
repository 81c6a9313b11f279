"""The soak: a stream of jobs in a real deployment under random faults, and a verdict on what came
of them.

    python -m tests.soak --seconds 600 --seed 1 --ledger etcd

``plan`` says which faults strike when, and which jobs run, by a seed. ``deployment`` is Airflow,
its two workers as hosts, PostgreSQL, Redis, and the store. ``victims`` and ``faults`` know what can
be struck now, and how. ``jobs`` is the stream; ``dags`` has the jobs, and ``records`` what each of
them did. ``leftovers`` and ``verdict`` find what is wrong, ``recovery`` and ``report`` have the
figures. See docs/soak.md.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak import plan
from tests.soak.deployment import Deployment, Ledger, deployment
from tests.soak.faults import Faults
from tests.soak.jobs import Jobs
from tests.soak.leftovers import left_by_jobs
from tests.soak.records import records_of
from tests.soak.recovery import Recoveries
from tests.soak.report import report
from tests.soak.verdict import problems_of_jobs
from tests.support.networks import NetworkError

_LAST_JOBS = 120.0
"""How long the jobs that run at the end may take, in seconds."""
_GONE = 40.0
"""How long what they started may take to go. An agent has its grace period, and then some."""
_PAUSE = 0.2


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _soak(there: Deployment, seconds: float, seed: int, *, calm: bool) -> list[str]:
    """Run jobs under faults for so many ``seconds``; all that went wrong."""
    there.server.client.await_dags(*(plan.TRAINS), "fails_by_configuration")
    jobs = Jobs(there, plan.jobs(seed))
    planned = [] if calm else plan.faults(seed, seconds, store=bool(there.members))
    faults, recoveries = Faults(there, planned, jobs.running), Recoveries()
    until = time.monotonic() + seconds

    def go_on(goes_on: Callable[[], bool]) -> None:
        while goes_on():
            for strike in faults.strike():
                _say(str(strike))
                recoveries.add(strike)
            recoveries.look(jobs.running())
            time.sleep(_PAUSE)

    try:
        go_on(lambda: not jobs.over and time.monotonic() < until)
        _say("no more jobs, no more faults")
        faults.close()
        jobs.end()
        until = time.monotonic() + _LAST_JOBS
        go_on(lambda: not jobs.over and time.monotonic() < until)
        unfinished = [job.name for job in jobs.all if not job.state]
    finally:
        faults.close()
        jobs.give_up()
    records = records_of(jobs.all, faults.strikes)
    problems = [f"{name} has not ended {_LAST_JOBS:.0f} s later" for name in unfinished]
    problems += problems_of_jobs(records)
    retried = [job.run.run_id for job in jobs.all if any(t["try_number"] > 1 for t in job.tasks)]
    problems += [f"left behind: {one}" for one in left_by_jobs(there, _GONE, retried)]
    lines = report(jobs.all, records, faults.strikes, faults.without_victim, recoveries.seconds)
    print("\n".join(lines), flush=True)
    return problems


def _main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long; %(default)g")
    parser.add_argument("--seed", type=int, help="of the plan; by default a new one")
    parser.add_argument("--ledger", type=Ledger, choices=[*Ledger], default=Ledger.ETCD)
    parser.add_argument("--calm", action="store_true", help="without faults, for comparison")
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the same way as by Ctrl-C
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)  # for PostgreSQL's user
    told = f"seed {seed}, {asked.seconds:g} s, {asked.ledger}"
    began = time.monotonic()
    _say(f"soak: {told}")
    try:
        with deployment(folder, asked.ledger) as there:
            _say(f"everything runs after {time.monotonic() - began:.0f} s")
            problems = _soak(there, asked.seconds, seed, calm=asked.calm)
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 1
    _say(f"soak: {told}: {'failed' if problems else 'passed'}; {time.monotonic() - began:.0f} s")
    if not problems:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    print("\n".join(problems))
    print(f"logs: {folder}/airflow; what ranks did: {folder}/jobs")
    return 1


if __name__ == "__main__":
    sys.exit(_main())
