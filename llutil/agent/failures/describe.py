"""Describes a node's failure: from how its ranks ended to the first failure, its class, its reason,
and a short text.

It reads nothing and waits for nothing: each ``RankExit`` and the count of memory kills are
arguments. It imports nothing outside the standard library and this package, and no torch.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace

from llutil.agent.failures.classify import (
    classify,
    lacks_shared_memory,
    only_reports_peer,
    printed_error,
)
from llutil.agent.failures.shorten import shortened, without_native_frames
from llutil.agent.worker_side.outcome_pipe import STUCK_KINDS, ErrorNote
from llutil.agent.workers.rank_exit import RankExit
from llutil.failure import Failure, FailureClass, JobFailure, first_failure
from llutil.system.exit_status import exit_text
from llutil.system.oom_kills import KillCount
from llutil.system.printable import printable, printable_lines

__all__ = ["node_failure"]

# Limits of a traceback, of the stacks of a node's ranks, and of the last lines of standard error:
# lines, and bytes as JSON.
_TRACE = (32, 4000)
_STACKS = (80, 8000)
_TAIL_WITH_TRACE = (8, 1500)
_TAIL_ALONE = (16, 2500)

_SHARED_MEMORY = "the shared memory in /dev/shm is used up: give the container more of it"
"""What to do: ``docker run --shm-size``, or ``pod_override(shared_memory=...)``."""

# Characters.
_LONGEST_REASON = 500


def node_failure(ended: Sequence[RankExit], memory: KillCount | None) -> JobFailure:
    """What went wrong on a node whose ranks ended like this, without what only its agent knows.

    Ranks that the agent stopped do not count, unless no other rank failed.
    """
    failed = [one for one in ended if one.failed]
    candidates = [one for one in failed if not one.stopped_by_agent] or failed
    failures = [
        JobFailure.of(_failure(one, memory), fatal=_is_fatal(one))
        for one in sorted(candidates, key=lambda one: one.at)
    ]
    first = first_failure(failures, lambda one: one)
    assert first is not None
    return replace(first, fatal=any(map(_is_fatal, ended)))


def _is_fatal(ended: RankExit) -> bool:
    return isinstance(ended.note, ErrorNote) and ended.note.fatal


def _error_note(ended: RankExit) -> ErrorNote:
    """What the rank reported of its failure. A command has no outcome pipe and reports it only on
    standard error; so does a program that handles an exception and calls ``sys.exit``.
    """
    if isinstance(ended.note, ErrorNote) and ended.note.exit_code is None:
        return ended.note
    printed = printed_error(ended.tail) if ended.status > 0 else None
    kind, text = printed or ("", "\n".join(ended.tail))
    return ErrorNote(kind=kind, text=text)


def _failure(ended: RankExit, memory: KillCount | None) -> Failure:
    said = _error_note(ended)
    failure_class = classify(ended.status, said, memory.kills if memory else None)
    whole: list[str] = []
    if isinstance(ended.note, ErrorNote):
        text = ended.note.trace or (ended.note.text if "\n" in ended.note.text else "")
        whole = printable_lines(text.rstrip())
    limits = _STACKS if said.kind in STUCK_KINDS else _TRACE
    trace = shortened(without_native_frames(whole), *limits)
    known = set(whole)
    tail = without_native_frames(
        [line for line in map(printable, ended.tail) if line.strip() and line not in known]
    )
    most, size = _TAIL_WITH_TRACE if trace else _TAIL_ALONE
    return Failure(
        rank=ended.rank,
        local_rank=ended.local_rank,
        pid=ended.pid,
        exit_status=ended.status,
        failure_class=failure_class,
        reason=printable(_reason(ended, said, failure_class, memory)[:_LONGEST_REASON]),
        trace="\n".join(trace),
        tail=tuple(shortened(tail, most, size, ends=True)),
        echo=only_reports_peer(ended.status, said),
        final_exception=said.final_exception,
    )


def _reason(
    ended: RankExit, said: ErrorNote, failure_class: FailureClass, memory: KillCount | None
) -> str:
    reason = ended.reason
    if lacks_shared_memory(said):
        return f"{reason} ({_SHARED_MEMORY})"
    if said is not ended.note and said.kind:
        return f"{reason}: {said.kind}: {said.text}" if said.text else f"{reason}: {said.kind}"
    if memory is None:
        return reason
    many = "processes" if memory.kills > 1 else "process"
    killed = f"out of memory: the kernel killed {memory.kills} {many} for it"
    if ended.note is not None:
        if failure_class is FailureClass.OUT_OF_MEMORY and memory.kills:
            return f"{reason} ({killed}, as {memory.where} counted)"
        return reason
    if failure_class is FailureClass.OUT_OF_MEMORY:
        meaning = killed
    elif ended.status == -signal.SIGKILL:
        meaning = "sent by a person or the platform; none for lack of memory"
    else:
        return reason
    how = "signal 9 (SIGKILL: " if ended.status < 0 else f"{exit_text(ended.status)} ("
    return f"{how}{meaning}, as {memory.where} counted)"
