"""Faults that strike a job on purpose, so that its owner knows what they cost before they come.

A DAG file or a program says which: ``chaos=[kill(rank=1, step=5), cut(node=0, seconds=20)]``. Off
by default; whatever is asked for is said in the log at the start, and when it strikes.

* ``faults``: the faults as values; ``by_seed``: some that a seed chooses; ``fault_texts``: both as
  text, which is how a configuration and a rank's environment hold them.
* ``rank_faults``: what a rank is told of them, in its environment.
* ``faulty_steps``: the ``worker.step`` of a rank that faults may strike. It takes the place of the
  usual one only in a job that has faults, so that other jobs pay nothing.
* ``strikes``: how a real fault is made: SIGKILL, SIGTERM to the agent, an allocation that fails, a
  wait that never ends.
* ``memory``: which faults have struck. Each strikes once in a life of its job, also after restarts
  and on other nodes: that lies beside the job's checkpoints, or without these on the host.
* ``job_chaos``: what an agent does with the faults of its job.
* ``journal``: what ranks did, for tests: steps, samples, faults.

Five faults are made by the rank itself, at the end of its step. ``cut`` is made in the agent, by
the node's first rank: it gives the order over the event page, and
``llutil.ledgers.cut_ledger`` takes it. A fault that cannot be remembered does not strike, since it
would strike at every restart.

The values may be imported by a DAG file: they need only the standard library and ``llutil.errors``.
The room may also import ``llutil.events``, ``llutil.checkpoints`` and ``llutil.system``; torch is
used where a rank has imported it already.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llutil.chaos.by_seed import random_faults
    from llutil.chaos.faults import Fault, cut, hang, kill, oom, preempt, slow
    from llutil.chaos.journal import note_samples

__all__ = [
    "Fault",
    "cut",
    "hang",
    "kill",
    "note_samples",
    "oom",
    "preempt",
    "random_faults",
    "slow",
]

_ELSEWHERE = {
    "note_samples": "llutil.chaos.journal",
    "random_faults": "llutil.chaos.by_seed",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "llutil.chaos.faults")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
