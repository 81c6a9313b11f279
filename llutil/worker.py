"""What user code in a worker can ask and tell: who it is, how far it has come, which flags are up.

It works in functions and in scripts, from the environment and the event page alone. The rank facts
need a worker and say so where there is none; ``progress`` and ``events`` also work in a script run
by hand::

    from llutil.launcher import worker

    for step, batch in enumerate(batches, 1):
        ...
        worker.progress(step, total=len(batches))
        if worker.events().stop_all_tasks.is_set():
            break

This module may import nothing but the standard library, ``llutil.errors`` and
``llutil.events.events``: no torch, so that any program can use it.
"""

from __future__ import annotations

import os

from llutil.errors import ConfigError
from llutil.events.events import ENVIRONMENT, Events, Slot

__all__ = [
    "events",
    "group_rank",
    "local_rank",
    "local_world_size",
    "progress",
    "rank",
    "restart_count",
    "run_id",
    "world_size",
]


class _Kept:
    """What a process looks up once: its page, its slot. A forked child looks again, since it may be
    another worker; ``private`` is what a process outside any worker has, and shares with its
    children.
    """

    __slots__ = ("attached", "hooked", "private", "slot")

    def __init__(self) -> None:
        self.attached: Events | None = None
        self.slot: Slot | None = None
        self.private: Events | None = None
        self.hooked = False

    def forget(self) -> None:
        self.attached = self.slot = None


_kept = _Kept()


def rank() -> int:
    """This worker's number in the job, from 0. Like its siblings, it raises ``ConfigError``
    elsewhere.
    """
    return _number("RANK")


def local_rank() -> int:
    """This worker's number on its node, from 0."""
    return _number("LOCAL_RANK")


def world_size() -> int:
    """How many workers the job has in this round."""
    return _number("WORLD_SIZE")


def local_world_size() -> int:
    """How many workers this node has."""
    return _number("LOCAL_WORLD_SIZE")


def group_rank() -> int:
    """This node's number in the round, from 0."""
    return _number("GROUP_RANK")


def restart_count() -> int:
    """How often the job's workers have been restarted so far."""
    return _number("TORCHELASTIC_RESTART_COUNT")


def run_id() -> str:
    """The id of the job."""
    return _text("TORCHELASTIC_RUN_ID")


def progress(step: int, total: int = 0) -> None:
    """Report that ``step`` of ``total`` steps are done; it also counts as a sign of life.

    ``total`` 0 means unknown, or as last time. Outside a worker this does nothing.

    :raises ValueError: a number is below 0 or above 2**64 - 1.
    :raises TypeError: a number is not whole.
    """
    slot = _kept.slot
    if slot is None:
        if ENVIRONMENT not in os.environ:
            return
        slot = _kept.slot = _attached().slot(local_rank())
    slot.report(step, total)


def events() -> Events:
    """The page that this worker shares with its node, for its flags.

    Outside a worker these are events of this process alone, whose flags nobody else raises.

    :raises InfrastructureError: the page is gone, as it is once the launch is over.
    """
    if _kept.attached is not None:
        return _kept.attached
    if ENVIRONMENT in os.environ:
        return _attached()
    if _kept.private is None:
        _kept.private = Events.private()
    return _kept.private


def _attached() -> Events:
    if _kept.attached is None:
        if not _kept.hooked:
            os.register_at_fork(after_in_child=_kept.forget)
            _kept.hooked = True
        _kept.attached = Events.attach(os.environ[ENVIRONMENT], local_rank=local_rank())
    return _kept.attached


def _text(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(
            f"this process is no worker: {name} is not in its environment. Ask only in a function or "
            "script that a launch runs (launch_agent, ElasticLaunchOperator, torchrun)"
        )
    return value


def _number(name: str) -> int:
    value = _text(name)
    if not value.isdecimal():
        raise ConfigError(f"{name} is {value!r} in the environment; wanted a whole number")
    return int(value)
