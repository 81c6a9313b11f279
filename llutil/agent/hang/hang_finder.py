"""Finds the ranks of a node that hang or do not end, and takes them as failed.

It looks at the event page when ``hang_watch`` wants it to, has the stacks of all ranks taken if
that one suspects something, and lets ``odd_rank`` name the rank. It runs on the agent's loop and
thread, in the agent's own turns: it needs no thread, and reads nothing more often than needed. It
ends no process: the agent ends a round in which a rank has failed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from llutil.agent.event_loop import EventLoop
from llutil.agent.hang.exit_watch import ExitWatch
from llutil.agent.hang.hang_watch import HangTimeout, HangWatch, Sight, Suspicion
from llutil.agent.hang.odd_rank import OddRank, SeenRank, hang_of
from llutil.agent.hang.stack_text import written
from llutil.agent.hang.take_stacks import TakenStack, stacks_of
from llutil.agent.worker_side.outcome_pipe import RANK_HANGS, RANK_WAITS
from llutil.agent.workers.rank import Worker
from llutil.agent.workers.rank_group import RankGroup
from llutil.events.events import Events
from llutil.events.rank_slot import Doing
from llutil.system.printable import printable_lines
from llutil.system.process_table import all_processes

__all__ = ["HangFinder"]

_log = logging.getLogger(__name__)

# How many calls of a stack the report shows; the log shows all of each thread.
_CALLS = 12


class HangFinder:
    """Watches the ranks of one node, round after round."""

    def __init__(self, timeout: HangTimeout, events: Events, loop: EventLoop) -> None:
        self._watch = HangWatch(timeout)
        self._exits = ExitWatch()
        self._events = events
        self._loop = loop

    @property
    def next_look(self) -> float:
        """When ``look`` wants to be called, on ``time.monotonic()``; infinity if never."""
        return min(self._watch.next_look, self._exits.next_look)

    def begin(self) -> None:
        """The workers of a round have been started."""
        self._watch.begin(time.monotonic())

    def end(self) -> None:
        """They have ended."""
        self._watch.end()
        self._exits = ExitWatch()

    def look(self, workers: RankGroup, *, one_node: bool) -> None:
        """Look whether a rank hangs or has not ended in time, if that is due.

        ``one_node`` says that all ranks of the job are in ``workers``.
        """
        self._exits.look(time.monotonic(), workers.returned)
        if overdue := workers.overdue:
            self._take_as_not_ended(overdue)
        if time.monotonic() < self._watch.next_look:
            return
        running = workers.running
        sights, held = self._sights(running)
        held = held or _is_held(self._events)
        suspicion = self._watch.look(time.monotonic(), sights, held=held)
        if suspicion is not None:
            self._judge(suspicion, running, one_node=one_node)

    def show_stacks(self, workers: RankGroup, why: str) -> str:
        """Log what all ranks of this node do at this moment, and return what to tell people of it.
        It takes some seconds at most.
        """
        running = workers.running
        taken = self._stacks(running)
        _log.info("stacks, since %s\n%s", why, _all_threads(running, taken))
        return f"the stacks of this node's ranks are in its log: {why}"

    def _sights(self, running: Sequence[Worker]) -> tuple[list[Sight], bool]:
        """What is seen of ranks that run, and whether one of them is held: by a signal, a debugger,
        or in ``worker.step``.
        """
        if not running:
            return [], False
        second = os.sysconf("SC_CLK_TCK")
        ticks = dict.fromkeys((worker.process.pid for worker in running), 0)
        held = False
        for stat in all_processes().values():
            if stat.session in ticks:
                ticks[stat.session] += stat.ticks
                held = held or (stat.pid in ticks and stat.state in "Tt")
        sights = []
        for worker in running:
            slot = self._events.slot(worker.plan.local_rank)
            report = (slot.step, slot.heartbeat) if slot.heartbeat else None
            cpu = ticks[worker.process.pid] / second
            saves = slot.doing == Doing.CHECKPOINT
            sights.append(Sight(worker.plan.local_rank, report, cpu, saves))
            held = held or slot.doing == Doing.HELD
        return sights, held

    def _judge(self, suspicion: Suspicion, running: Sequence[Worker], *, one_node: bool) -> None:
        taken = self._stacks(running)
        seen = [self._seen(worker, taken[worker.process.pid]) for worker in running]
        odd = hang_of(suspicion, seen, one_node=one_node)
        if odd is None:
            names = ", ".join(str(one.rank) for one in seen if one.local_rank in suspicion.silent)
            _log.info("rank %s waits for other ranks that may be working", names)
            self._watch.acquit(suspicion.silent)
            return
        worker = next(one for one in running if one.plan.local_rank == odd.rank.local_rank)
        if worker.ended is not None or worker.reported_error:
            return  # it did while its stack was taken
        text = _reason(suspicion, odd, seen)
        lines = _report(odd, seen)
        _log.error("rank %d: %s\n%s", odd.rank.rank, text, _all_threads(running, taken))
        worker.take_as_stuck(RANK_WAITS if odd.elsewhere else RANK_HANGS, text, "\n".join(lines))

    def _take_as_not_ended(self, overdue: Sequence[Worker]) -> None:
        taken = self._stacks(overdue)
        for worker in overdue:
            if worker.ended is not None:
                continue
            one = taken[worker.process.pid]
            stack = f"it was doing this:\n{_text(one)}" if one.stack else ""
            worker.kill_overdue(stack)

    def _stacks(self, workers: Sequence[Worker]) -> dict[int, TakenStack]:
        return stacks_of([worker.process.pid for worker in workers], self._loop.turn)

    def _seen(self, worker: Worker, taken: TakenStack) -> SeenRank:
        slot = self._events.slot(worker.plan.local_rank)
        return SeenRank(
            local_rank=worker.plan.local_rank,
            rank=worker.plan.rank,
            pid=worker.process.pid,
            step=slot.step if slot.heartbeat else None,
            heartbeat=slot.heartbeat,
            stack=taken.stack,
            unknown=taken.unknown,
        )


def _is_held(events: Events) -> bool:
    """Whether a flag says that ranks stand still because somebody wants it."""
    paused = events.pause.is_set() or events.paused.is_set()
    return events.debugged or (paused and not events.resume.is_set())


def _reason(suspicion: Suspicion, odd: OddRank, seen: Sequence[SeenRank]) -> str:
    """One line: what was seen, and why it is this rank."""
    silent = max(suspicion.silent.values())
    if odd.rank.local_rank in suspicion.silent:
        silent = suspicion.silent[odd.rank.local_rank]
        text = f"it has made step {odd.rank.step} and reported nothing for {silent:.0f} s"
    else:
        names = ", ".join(str(one.rank) for one in seen if one.local_rank in suspicion.silent)
        text = f"rank {names} has reported nothing for {silent:.0f} s"
    if suspicion.only_idle:
        text += ", and no rank here works"
    if odd.elsewhere:
        return f"{text}; every rank of this node waits for others, so the cause is on another node"
    return f"{text}; {odd.why}" if odd.why else text


def _report(odd: OddRank, seen: Sequence[SeenRank]) -> list[str]:
    """Where each rank stands, the odd one first; ranks with the same stack share it."""
    groups: dict[object, list[SeenRank]] = {}
    for one in sorted(seen, key=lambda one: (one is not odd.rank, one.rank)):
        alike = (one.stack.main if one.stack else one.unknown, one is odd.rank)
        groups.setdefault(alike, []).append(one)
    lines: list[str] = []
    for ranks in groups.values():
        steps = ", ".join(f"rank {one.rank} ({_step(one)}, pid {one.pid})" for one in ranks)
        first = ranks[0]
        if first.stack is None:
            lines.append(f"{steps}: no stack: {first.unknown}")
            continue
        lines.append(f"{steps}, most recent call first:")
        threads = first.stack.threads if first is odd.rank else first.stack.threads[:1]
        lines += written(threads, _CALLS)
    return lines


def _step(one: SeenRank) -> str:
    return "no step reported" if one.step is None else f"step {one.step}"


def _all_threads(running: Sequence[Worker], taken: dict[int, TakenStack]) -> str:
    """The text for the log."""
    lines = []
    for worker in running:
        one = taken[worker.process.pid]
        lines.append(f"stacks of rank {worker.plan.rank} (pid {worker.process.pid}):")
        lines.append(_text(one) if one.stack else f"none: {one.unknown}")
    return "\n".join(lines)


def _text(one: TakenStack) -> str:
    return "\n".join(printable_lines(one.text.strip()))
