"""What kind of failure it was: from what is known of a rank's end to one of six classes.

A decision over plain values; who finds them is the agent. The first rule that fits decides:

=================  =================================================================================
bad configuration  The user's code never began: what was to be run could not be found, loaded or
                   started.
out of memory      ``MemoryError`` or torch's ``OutOfMemoryError`` by name. A message of torch or
                   the system that an allocation failed. A SIGKILL, of the rank or, as a shell or a
                   data loader tells it, of its child, while the memory cgroup counted an
                   out-of-memory kill.
hang               A collective or a wait at the store ran into its timeout: gloo's, NCCL's
                   watchdog's or the store's words. The rank that says so waited; some rank,
                   perhaps another, hung. A rank that returned and did not end.
preemption         SIGTERM, SIGINT or SIGHUP that the agent did not send, or ``KeyboardInterrupt``:
                   so platforms and people ask a process to go, and no code does it to itself by
                   mistake.
infrastructure     SIGKILL without evidence of the above: nothing inside the process can have caused
                   it by mistake, and a platform that evicts ends so. SIGBUS: a page of a mapped
                   file could not be had, as on a full ``/dev/shm`` or a lost disk. A peer that went
                   away in the middle of a collective, as far as it is the first failure that is
                   known: then that of the peer's node or network.
user code          All else: exceptions, exit codes, SIGSEGV, SIGABRT and what else native code does
                   to itself.
=================  =================================================================================

Texts are those of torch 2.13 (gloo's and the store's measured; NCCL's from its source). This module
may import nothing but the standard library, ``worker_side.outcome_pipe`` and ``llutil.failure``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from llutil.agent.worker_side.outcome_pipe import RANK_DID_NOT_END, ErrorNote
from llutil.failure import FailureClass

__all__ = ["classify", "is_echo", "printed_error"]

_SHELL_KILLED = 128 + signal.SIGKILL
"""How a shell tells that its command was killed."""

_NO_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|DefaultCPUAllocator: can't allocate memory|"
    r"\[Errno 12\] Cannot allocate memory"
)
_CHILD_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) .*killed by signal: Killed")
_TIMED_OUT = re.compile(
    r"Timed out waiting \d+ms for (recv|send) operation to complete|"  # gloo
    r"Watchdog caught collective operation timeout|"  # NCCL
    r"[Ww]ait timeout after \d+ms, keys?:|"  # the store
    r"Timed out after \d+ seconds waiting for clients"
)
_PEER_GONE = re.compile(
    r"Connection closed by peer|"  # gloo, in all collectives
    r"gloo/transport/.*(Connection reset by peer|Broken pipe)|"
    r"ncclRemoteError|NCCL.*remote process exited|"
    r"(Connection was likely closed|failed to recv, got 0 bytes|Failed to recv)"  # the store
)
_OF_TORCH = {
    "DistBackendError",
    "DistError",
    "DistNetworkError",
    "DistStoreError",
    "DistQueueEmptyError",
    "RuntimeError",
}
"""What torch's distributed errors are called; who raises something else means something else by the
same words.
"""

_PRINTED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?:: (.*))?")


def classify(status: int, said: ErrorNote, oom_kills: int | None = None) -> FailureClass:
    """The class of a failure; the module's table says why.

    ``status`` is the rank's exit status, negative for a signal. ``said`` is what it said of the
    failure. Without an exception, its ``kind`` is empty and its ``text`` is the end of the rank's
    standard error. ``oom_kills``: how many processes the memory cgroup saw killed meanwhile; None
    if that is not known.
    """
    if said.bad_configuration:
        return FailureClass.BAD_CONFIGURATION
    if _lacked_memory(status, said, oom_kills):
        return FailureClass.OUT_OF_MEMORY
    if _may_be_torchs(said) and _TIMED_OUT.search(said.text):
        return FailureClass.HANG
    if said.kind == RANK_DID_NOT_END:
        return FailureClass.HANG
    if _name(said) == "KeyboardInterrupt":
        return FailureClass.PREEMPTION
    if not said.kind and status < 0:
        return _of_signal(-status)
    return FailureClass.INFRASTRUCTURE if is_echo(status, said) else FailureClass.USER_CODE


def _lacked_memory(status: int, said: ErrorNote, oom_kills: int | None) -> bool:
    name = _name(said)
    if name in {"MemoryError", "OutOfMemoryError"}:
        return True
    if said.kind and _NO_MEMORY.search(said.text):
        return True
    killed = (not said.kind and status in {-signal.SIGKILL, _SHELL_KILLED}) or (
        name == "RuntimeError" and _CHILD_KILLED.search(said.text)
    )
    return bool(killed and oom_kills)


def _of_signal(number: int) -> FailureClass:
    if number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        return FailureClass.PREEMPTION
    if number in {signal.SIGKILL, signal.SIGBUS}:
        return FailureClass.INFRASTRUCTURE
    return FailureClass.USER_CODE


def is_echo(status: int, said: ErrorNote) -> bool:
    """Whether all it says is that a peer went away in the middle of something: the cause is
    elsewhere.
    """
    spoke = bool(said.kind) or status >= 0
    return spoke and _may_be_torchs(said) and bool(_PEER_GONE.search(said.text))


def _name(said: ErrorNote) -> str:
    """The exception's class name without its module."""
    return said.kind.rpartition(".")[2]


def _may_be_torchs(said: ErrorNote) -> bool:
    """Whether the text may be torch's: by the exception's name, or because there is none."""
    return not said.kind or _name(said) in _OF_TORCH


def printed_error(lines: Sequence[str]) -> tuple[str, str] | None:
    """Name and message of the exception that a Python program printed last, if ``lines`` end with a
    traceback.

    For programs that are run as commands, which say why they failed on standard error alone.
    """
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return None
    for line in lines[frames[-1] + 1 :]:
        match = _PRINTED.fullmatch(line)
        if match:
            return match[1], match[2] or ""
    return None
