"""What user code in a worker can ask and report: its rank, its progress, checkpoints, flags.

It works in functions and in scripts; all it needs is the environment and the event page. The
functions about ranks raise an error outside a worker. The others also work in a script that is run
by hand, as one process whose checkpoints are below ``./checkpoints``::

    from llutil.launcher import worker

    done = worker.resume()
    if done:
        load(done.path)
    for step in range(done.step if done else 0, total):
        loss = train_one(...)
        todo = worker.step(step + 1, total, loss=loss)
        if todo.checkpoint:
            with worker.checkpoint(step + 1) as folder:
                save(folder)
        if todo.stop:
            break

This module may import only the standard library, ``llutil.errors``, ``llutil.events``,
``llutil.checkpoints`` and ``llutil.chaos``: no torch, so that any program can use it.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from llutil.chaos.variable import CHAOS
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import checkpoint_every, has_place
from llutil.checkpoints.saves import Save, Saves
from llutil.errors import ConfigError
from llutil.events.events import ENVIRONMENT, SLOT_NUMBER, Events, Slot
from llutil.events.metrics import RankMetrics
from llutil.events.steps import LoneSteps, Steps, Todo

__all__ = [
    "Checkpoint",
    "Todo",
    "checkpoint",
    "events",
    "group_rank",
    "local_rank",
    "local_world_size",
    "progress",
    "rank",
    "restart_count",
    "resume",
    "run_id",
    "step",
    "world_size",
]


class _ProcessState:
    """What a process looks up once: its page and its slot.

    A forked child looks them up again, since it may be another worker. ``private`` is the page of a
    process outside any worker; its forks share it.
    """

    __slots__ = ("attached", "fork_hook_set", "metrics", "private", "saves", "slot", "steps")

    def __init__(self) -> None:
        self.attached: Events | None = None
        self.slot: Slot | None = None
        self.private: Events | None = None
        self.saves: Saves | None = None
        self.steps: Steps | None = None
        self.metrics: RankMetrics | None = None
        self.fork_hook_set = False

    def forget(self) -> None:
        self.attached = self.slot = self.saves = self.steps = self.metrics = None


_state = _ProcessState()


def rank() -> int:
    """This worker's number in the job, from 0.

    :raises ConfigError: this process is not a worker. The functions below raise it too.
    """
    return _number("RANK")


def local_rank() -> int:
    """This worker's number on its node, from 0; always 0 with ``virtual_local_rank``."""
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
    """How often the workers of the job have been restarted so far."""
    return _number("TORCHELASTIC_RESTART_COUNT")


def run_id() -> str:
    """The id of the job."""
    return _text("TORCHELASTIC_RUN_ID")


def progress(step: int, total: int = 0) -> None:
    """Report that ``step`` of ``total`` steps are done; it is also the rank's heartbeat.

    With ``total`` 0 the last total stays; it is 0 until one is known. Outside a worker this does
    nothing.

    :raises ValueError: a number is below 0 or above 2**64 - 1.
    :raises TypeError: a number is not an integer.
    """
    slot = _state.slot
    if slot is None:
        if ENVIRONMENT not in os.environ:
            return
        slot = _state.slot = _attached().slot(_slot_number())
    slot.report(step, total)


def step(step: int, total: int = 0, **metrics: Any) -> Todo:
    """Report that ``step`` of ``total`` steps are done, and learn what all ranks do now.

    The answer is the same on every rank of the job after the same step, so no collective is needed
    for that. While the job is paused, or agrees on the step at which something is done, this does
    not return. It never waits for ever. If ``checkpoint_every`` is a number of steps, then
    ``checkpoint`` is true whenever the step has passed a multiple of it. Steps are counted from 1
    over the whole job, through all of its restarts; a rank may report a step again, but never an
    earlier one.

    ``metrics`` are up to 8 numbers by name. A tensor is converted once a second at most, since that
    may wait for a GPU.

    Outside a worker it answers from this process's own flags, ``trigger_save_checkpoint`` and
    ``stop_all_tasks`` of ``events()``.

    :raises ValueError: ``step`` is below 0 or less than before, or a number is too great.
    :raises TypeError: a number is not an integer, or a metric no number.
    :raises RuntimeError: another thread than before calls it.
    """
    steps = _state.steps
    if steps is None:
        steps = _steps()
    if metrics:
        assert _state.metrics is not None
        _state.metrics.write(metrics)
    return steps.step(step, total)


def events() -> Events:
    """The page that this worker shares with its node, for its flags.

    Outside a worker it is a private page, whose flags no other process raises.

    :raises InfrastructureError: the page is gone, because the launch is over.
    """
    if _state.attached is not None:
        return _state.attached
    if ENVIRONMENT in os.environ:
        return _attached()
    if _state.private is None:
        _state.private = Events.private()
    return _state.private


def checkpoint(step: int) -> Save:
    """A context with a folder to write into: the checkpoint after ``step`` steps.

    Every rank of the job enters it after the same step. The folder is a path, or a URI that fsspec
    knows if the job's checkpoints are in such a store::

        with worker.checkpoint(step) as folder:
            torch.save(state, f"{folder}/rank-{worker.rank()}.pt")

    The context ends once all ranks have left it and the checkpoint is committed. From then on it
    is what a restart resumes from. Of what is saved behind, the context has to know::

        with worker.checkpoint(step) as folder:
            folder.after(dcp.async_save(state, checkpoint_id=folder, process_group=its_own))

    ``dcp`` is ``torch.distributed.checkpoint``; its collectives go on in another thread, so it
    needs a process group that nothing else uses. That context ends at once. The checkpoint counts
    when all ranks' futures are done; an error of it is raised by the next context.

    :raises CheckpointError: it is not committed: another rank failed in it, or was at another step,
        or did not come in time; or the store refused. Checkpoints before it stay as they are.
    :raises ConfigError: the job has several nodes and no ``checkpoint_path``.
    """
    return _saves().save(step)


def resume() -> Checkpoint | None:
    """The newest committed checkpoint of this job, the same on all ranks; None without one, and in
    a job of several nodes that has no ``checkpoint_path``.

    Rank 0 looks for it when it first calls this, and all ranks of the round get what it has found
    until they have committed one themselves. A job that has succeeded begins afresh, unless
    ``resume="always"`` says otherwise.

    Its ``path`` is what the context gave, ``step`` how many steps are done in it, and
    ``world_size`` how many ranks wrote it, which may not be as many as there are now.

    :raises CheckpointError: rank 0 has not called it in time, or the store refuses.
    """
    return _saves().resume() if has_place(os.environ) else None


def _saves() -> Saves:
    if _state.saves is None:
        _hook_fork()
        saves, steps = Saves(), _steps()
        saves.entered, saves.left, saves.ended = steps.saving, steps.left, steps.saved
        saves.resumed = _tell_resumed
        _state.saves = saves
        atexit.unregister(_end)  # a fork may have dropped it
        atexit.register(_end)
    return _state.saves


def _tell_resumed(step: int) -> None:
    events().resumed_from = step


def _end() -> None:
    if _state.saves is not None:
        _state.saves.end()


def _steps() -> Steps:
    if _state.steps is None:
        _hook_fork()
        page, every = events(), checkpoint_every(os.environ)
        if ENVIRONMENT in os.environ:
            slot = page.slot(_slot_number())
            if CHAOS in os.environ:
                from llutil.chaos.faulty_steps import FaultySteps

                _state.steps = FaultySteps(slot, page, every, os.environ)
            else:
                _state.steps = Steps(slot, page.gate, every)
        else:
            slot = page.slot(0)
            _state.steps = LoneSteps(page, every)
        _state.metrics = page.metrics_of(slot)
    return _state.steps


def _hook_fork() -> None:
    if not _state.fork_hook_set:
        os.register_at_fork(after_in_child=_state.forget)
        _state.fork_hook_set = True


def _attached() -> Events:
    if _state.attached is None:
        _hook_fork()
        _state.attached = Events.attach(os.environ[ENVIRONMENT], local_rank=_slot_number())
    return _state.attached


def _slot_number() -> int:
    """The number of this worker's slot on the page."""
    return _number(SLOT_NUMBER if SLOT_NUMBER in os.environ else "LOCAL_RANK")


def _text(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(
            f"this process is not a worker: {name} is not in its environment. Call this only in a "
            "function or script that a launch runs (launch_agent, ElasticLaunchOperator, torchrun)"
        )
    return value


def _number(name: str) -> int:
    value = _text(name)
    if not value.isdecimal():
        raise ConfigError(f"{name} is {value!r} in the environment; wanted a whole number")
    return int(value)
