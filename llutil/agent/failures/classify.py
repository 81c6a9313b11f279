"""Finds the class of a failure: one of six, from what is known of a rank's end.

This module decides over plain values that the agent has found. The first rule that fits decides:

=================  =================================================================================
bad configuration  The user's code never began: the entrypoint could not be found, loaded or
                   started.
out of memory      ``MemoryError`` or torch's ``OutOfMemoryError`` by name. A message of torch or
                   the system that an allocation failed. A SIGKILL while the memory cgroup counted
                   an out-of-memory kill: of the rank, or of its child, if a shell, a data loader, a
                   process pool or ``subprocess`` reports that one was killed.
hang               A collective or a wait at the store ran into its timeout, by a message of gloo,
                   NCCL's watchdog or the store. The rank that reports it waited; some rank, perhaps
                   another one, hung. Also a rank that returned and whose process did not end, and
                   one that reported progress and no longer does (``agent.hang``).
preemption         SIGTERM, SIGINT or SIGHUP that the agent did not send, or ``KeyboardInterrupt``.
                   Platforms and people stop a process in this way, and code does not do it to
                   itself by mistake.
infrastructure     SIGKILL without evidence of the above: code does not send it to itself by
                   mistake, and a platform that evicts a process sends it. SIGBUS, of the rank or
                   of a data loader's worker: a page of a mapped file was not available, for example
                   on a full ``/dev/shm`` or a lost disk; and torch's error that says so.
                   A checkpoint that its store refused to write or to read, as on a full disk, or
                   that the other ranks have gone on without.
                   A peer that went away during a collective, if no earlier failure is known: then
                   the peer's node or network has failed.
user code          All else: exceptions, exit codes, SIGSEGV, SIGABRT and other crashes of native
                   code.
=================  =================================================================================

Texts are those of torch 2.13 (gloo's and the store's measured; NCCL's from its source). This module
may import nothing but the standard library, ``worker_side.outcome_pipe``, ``llutil.errors`` and
``llutil.failure``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence

from llutil.agent.worker_side.outcome_pipe import RANK_WAITS, STUCK_KINDS, ErrorNote
from llutil.errors import CheckpointAbandonedError, CheckpointPeerError, CheckpointStoreError
from llutil.failure import FailureClass

__all__ = ["classify", "lacks_shared_memory", "only_reports_peer", "printed_error"]

_SHELL_STATUS_OF_SIGKILL = 128 + signal.SIGKILL
"""The exit status of a shell whose command was killed."""

_NO_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|DefaultCPUAllocator: can't allocate memory|"
    r"Cuda failure (?:\d{1,4} )?'out of memory'|"  # NCCL
    r"CUBLAS_STATUS_ALLOC_FAILED|"
    r"\[Errno 12\] Cannot allocate memory"
)
_CHILD_KILLED = (
    ("DataLoader worker (pid", ("killed by signal: Killed", "exited unexpectedly")),
    ("died with <Signals.SIGKILL", ("",)),  # subprocess
    ("returned non-zero exit status", ("137",)),  # subprocess, of a shell
    ("terminated abruptly", ("",)),  # concurrent.futures
    ("terminated with signal SIGKILL", ("",)),  # torch.multiprocessing
)
"""Words in one line of a text, and words one of which stands behind them."""
_NO_SHARED_MEMORY = (
    ("DataLoader worker (pid", ("killed by signal: Bus error",)),
    ("Unexpected bus error encountered in worker", ("",)),
    ("shared memory", ("No space left on device",)),
    ("/torch_", ("No space left on device",)),
)
"""The same of words, as above."""
_TIMED_OUT = re.compile(
    r"Timed out waiting \d+ms for (recv|send) operation to complete|"  # gloo
    r"Watchdog caught collective operation timeout|"  # NCCL
    r"[Ww]ait timeout after \d+ms, keys?:|"  # the store
    r"Timed out after \d+ seconds waiting for clients"
)
_PEER_GONE = re.compile(
    r"Connection closed by peer|"  # gloo, in all collectives
    r"ncclRemoteError|"
    r"(Connection was likely closed|failed to recv, got 0 bytes|Failed to recv)"  # the store
)
_PEER_GONE_IN = (
    ("gloo/transport/", ("Connection reset by peer", "Broken pipe")),
    ("NCCL", ("remote process exited",)),
)
"""The same of words, as above."""
_TORCH_ERRORS = {
    "DistBackendError",
    "DistError",
    "DistNetworkError",
    "DistStoreError",
    "DistQueueEmptyError",
    "RuntimeError",
}
"""Class names of torch's distributed errors. The same text in another exception means something
else.
"""

_PRINTED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?:: (.*))?")


def classify(status: int, said: ErrorNote, oom_kills: int | None = None) -> FailureClass:
    """The class of a failure; the module's docstring has the rules.

    ``status`` is the rank's exit status, negative for a signal. ``said`` is what the rank reported
    of the failure. Without an exception, its ``kind`` is empty and its ``text`` is the end of the
    rank's standard error. ``oom_kills`` is how many processes the memory cgroup saw killed during
    the round; None if that is not known.
    """
    if said.bad_configuration:
        return FailureClass.BAD_CONFIGURATION
    if said.kind in STUCK_KINDS:
        return FailureClass.HANG
    if _is_out_of_memory(status, said, oom_kills):
        return FailureClass.OUT_OF_MEMORY
    if _may_be_from_torch(said) and _TIMED_OUT.search(said.text):
        return FailureClass.HANG
    if _name(said) == "KeyboardInterrupt":
        return FailureClass.PREEMPTION
    if not said.kind and status < 0:
        return _class_of_signal(-status)
    if _says_peer_gone(status, said) or lacks_shared_memory(said) or _store_refused(said):
        return FailureClass.INFRASTRUCTURE
    return FailureClass.USER_CODE


def _is_out_of_memory(status: int, said: ErrorNote, oom_kills: int | None) -> bool:
    name = _name(said)
    if name in {"MemoryError", "OutOfMemoryError"}:
        return True
    if said.kind and _NO_MEMORY.search(said.text):
        return True
    killed = (not said.kind and status in {-signal.SIGKILL, _SHELL_STATUS_OF_SIGKILL}) or (
        said.kind and _has_words(_whole_text(said), _CHILD_KILLED) and not lacks_shared_memory(said)
    )
    return bool(killed and oom_kills)


def lacks_shared_memory(said: ErrorNote) -> bool:
    """Whether torch or a data loader reports that ``/dev/shm`` is full."""
    return bool(said.kind) and _has_words(_whole_text(said), _NO_SHARED_MEMORY)


def _store_refused(said: ErrorNote) -> bool:
    """Whether it was the store of checkpoints, here or, by what a peer told, at another rank."""
    return CheckpointStoreError.__name__ in f"{said.kind} {_whole_text(said)}"


def _whole_text(said: ErrorNote) -> str:
    """What was said, with the messages of the exceptions before the last."""
    return f"{said.text}\n{said.trace}"


def _class_of_signal(number: int) -> FailureClass:
    if number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        return FailureClass.PREEMPTION
    if number in {signal.SIGKILL, signal.SIGBUS}:
        return FailureClass.INFRASTRUCTURE
    return FailureClass.USER_CODE


def only_reports_peer(status: int, said: ErrorNote) -> bool:
    """Whether the rank reports only what has become of a peer, so that the cause is elsewhere: it
    went away during an operation, failed in a checkpoint, or is waited for on another node.
    """
    return _name(said) == CheckpointPeerError.__name__ or _says_peer_gone(status, said)


def _says_peer_gone(status: int, said: ErrorNote) -> bool:
    """Whether the rank reports only that a peer went away, or that it waits for one."""
    if said.kind == RANK_WAITS or _name(said) == CheckpointAbandonedError.__name__:
        return True
    reported = bool(said.kind) or status >= 0
    if not (reported and _may_be_from_torch(said)):
        return False
    return bool(_PEER_GONE.search(said.text)) or _has_words(said.text, _PEER_GONE_IN)


def _has_words(text: str, wanted: Iterable[tuple[str, tuple[str, ...]]]) -> bool:
    """Whether a line of ``text`` has words, and behind them one of the others.

    A message may be long, and a regular expression with ``.*`` takes time that grows with the
    square of its length.
    """
    for line in text.split("\n"):
        for first, others in wanted:
            _, found, behind = line.partition(first)
            if found and any(words in behind for words in others):
                return True
    return False


def _name(said: ErrorNote) -> str:
    """The exception's class name without its module."""
    return said.kind.rpartition(".")[2]


def _may_be_from_torch(said: ErrorNote) -> bool:
    """Whether the text may come from torch: by the exception's name, or because there is no
    exception.
    """
    return not said.kind or _name(said) in _TORCH_ERRORS


def printed_error(lines: Sequence[str]) -> tuple[str, str] | None:
    """Name and message of the exception that a Python program printed last, if ``lines`` end with a
    traceback.

    For programs that are run as commands: they report a failure only on standard error.
    """
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return None
    for line in lines[frames[-1] + 1 :]:
        match = _PRINTED.fullmatch(line)
        if match:
            return match[1], match[2] or ""
    return None
