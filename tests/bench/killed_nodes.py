"""What a job of two nodes loses when a node, an agent or a rank is killed, on etcd and on a served
ledger.

Two nodes with two ranks each on one machine train a model of DistributedDataParallel, a millisecond
and an ``all_reduce`` in each step; all save every 50 steps, and a lease is 3 s. A process is killed
after a random number of steps; where a node is lost, a spare waits. Where somebody else has to come
first, starting that node is in the time, from a process that has torch imported. Stock torch has no
checkpoints of its own to compare with; ``kills`` does that in Airflow.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from tests.bench.report.measurement import Goal, Measurement, Sample
from tests.integration.rendezvous.jobs import Job
from tests.integration.rendezvous.killed_jobs import EVERY, How, Kill, KilledJob
from tests.support.leftovers import MARK
from tests.support.stores import ETCD, SERVED, Store
from tests.support.torch_forks import TorchForks

__all__ = ["measure"]

_SEED = 1
_KILLS = 3  # in each way
_CASES = {
    How.ASKED: "asked",
    How.AGENT: "agent",
    How.RANK: "rank",
    How.NODE: "node",
}


def measure() -> Iterator[Measurement]:
    """Steps done twice, and the time until all ranks train again, for each way to be killed."""
    for store in (ETCD, SERVED):
        kills = _kills(store)
        for how, case in _CASES.items():
            some = [kill for kill in kills if kill.how is how]
            yield Measurement(
                name=f"again-{store}",
                case=case,
                what=f"steps done twice after {how}, {store}",
                unit="steps",
                ours=Sample.of(kill.redone for kill in some),
                goal=Goal("ours", 1 if how is How.ASKED else EVERY + 1),
            )
            yield Measurement(
                name=f"seconds-{store}",
                case=case,
                what=f"until all ranks train again after {how}, {store}",
                unit="s",
                ours=Sample.of(kill.seconds for kill in some),
            )


def _kills(store: Store) -> list[Kill]:
    """Kills of one job, in random order, each way as often as the others."""
    ways = [*How] * _KILLS
    random.Random(_SEED).shuffle(ways)
    with contextlib.ExitStack() as stack:
        # Each kill is printed there, and agents write there.
        stack.enter_context(
            contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w")))
        )
        marks = {MARK: secrets.token_hex(8), "TMPDIR": tempfile.gettempdir()}
        stack.enter_context(mock.patch.dict(os.environ, marks))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="killed-nodes-")))
        forks = TorchForks()
        stack.callback(forks.close)
        server = stack.enter_context(store.start())
        job = Job(forks, folder, store, server.endpoint)
        stack.callback(job.close)
        killed = KilledJob(job, _SEED)
        for how in ways:
            killed.kill(how)
        killed.stop()
        return killed.kills
