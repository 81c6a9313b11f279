"""Which class a failure is of: the whole table."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from llutil.agent.failures.classify import classify, only_reports_peer, printed_error
from llutil.agent.worker_side.outcome_pipe import ErrorNote
from llutil.failure import FailureClass

MEMORY = FailureClass.OUT_OF_MEMORY
CODE = FailureClass.USER_CODE
HANG = FailureClass.HANG
GONE = FailureClass.INFRASTRUCTURE
ASKED = FailureClass.PREEMPTION

GLOO = "[/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 4000ms for recv operation to complete"
NCCL = "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE)"
STORE = "wait timeout after 1000ms, keys: /default_pg/0//nokey"
CLIENTS = "Timed out after 5 seconds waiting for clients. 1/2 clients joined."
PEER = "[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:35210."
LOADER = "DataLoader worker (pid 4711) is killed by signal: Killed. "


Found = tuple[int, ErrorNote, int | None]
"""An exit status, what the rank said, and the count of the kernel's kills."""


def ended(status: int, text: str = "", kills: int | None = None) -> Found:
    return status, ErrorNote(kind="", text=text), kills


def died(number: int, text: str = "", kills: int | None = None) -> Found:
    return ended(-number, text, kills)


def raised(kind: str, text: str = "", kills: int | None = None, **others: Any) -> Found:
    return 1, ErrorNote(kind=kind, text=text, **others), kills


TABLE = {
    "an exception": (raised("ValueError", "no such digit"), CODE),
    "an exit code": (ended(3), CODE),
    "a store that is full": (raised("CheckpointStoreError", "/c cannot be used: [Errno 28]"), GONE),
    "a peer's store that is full": (raised("CheckpointPeerError", "rank 0 failed in it (CheckpointStoreError: /c: [Errno 28])"), GONE),
    "a peer's error in a checkpoint": (raised("llutil.errors.CheckpointPeerError", "rank 0 failed in it (ValueError: x)"), CODE),
    "a checkpoint that the others gave up": (raised("llutil.errors.CheckpointAbandonedError", "step 9 was removed"), GONE),
    "a checkpoint of two steps": (raised("CheckpointError", "rank 1 is at step 3"), CODE),
    "no value": (ended(0), CODE),
    "a loading error": (raised("ImportError", bad_configuration=True), FailureClass.BAD_CONFIGURATION),
    "a loading error for lack of memory": (raised("MemoryError", bad_configuration=True), FailureClass.BAD_CONFIGURATION),
    "MemoryError": (raised("MemoryError"), MEMORY),
    "torch's, by its name": (raised("OutOfMemoryError", "CUDA out of memory. Tried to"), MEMORY),
    "torch's, as printed": (raised("torch.OutOfMemoryError"), MEMORY),
    "torch's, on a CPU": (raised("RuntimeError", "[enforce fail at alloc_cpu.cpp:1] . "
        "DefaultCPUAllocator: can't allocate memory: you"), MEMORY),
    "CUDA's own": (raised("AcceleratorError", "CUDA error: out of memory"), MEMORY),
    "NCCL's": (raised("DistBackendError", "NCCL error in: NCCLUtils.cpp:77, unhandled cuda error\n"
        "Last error:\nCuda failure 2 'out of memory'"), MEMORY),
    "NCCL's, before 2.20": (raised("DistBackendError", "Last error:\nCuda failure 'out of memory'"), MEMORY),
    "cuBLAS'": (raised("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
        "`cublasCreate(handle)`"), MEMORY),
    "NCCL's refusal of two ranks on a GPU": (raised("DistBackendError", "ncclInvalidUsage: ...\nLast error:"
        "\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000"), CODE),
    "fork's": (raised("OSError", "[Errno 12] Cannot allocate memory"), MEMORY),
    "SIGKILL, and the group counted one": (died(9, kills=1), MEMORY),
    "SIGKILL, and the group counted none": (died(9, kills=0), GONE),
    "SIGKILL, and nobody counts": (died(9), GONE),
    "a shell's child, and the group counted one": (ended(137, kills=1), MEMORY),
    "a shell's child, and the group counted none": (ended(137, kills=0), CODE),
    "a loader's child, and the group counted one": (raised("RuntimeError", LOADER, 1), MEMORY),
    "a loader's child, and the group counted none": (raised("RuntimeError", LOADER, 0), CODE),
    "a loader's child, as its parent's last error": (raised("RuntimeError", "DataLoader worker (pid(s) 4711) exited unexpectedly", 1), MEMORY),
    "a subprocess": (raised("CalledProcessError", "Command '['sort']' died with <Signals.SIGKILL: 9>.", 1), MEMORY),
    "a subprocess that nobody counts": (raised("CalledProcessError", "Command '['sort']' died with <Signals.SIGKILL: 9>."), CODE),
    "a shell in a subprocess": (raised("CalledProcessError", "Command 'sort | uniq' returned non-zero exit status 137.", 1), MEMORY),
    "a process of a pool": (raised("BrokenProcessPool", "A process in the process pool was terminated abruptly while the future was", 1), MEMORY),
    "a process of torch's": (raised("ProcessExitedException", "process 1 terminated with signal SIGKILL", 1), MEMORY),
    "the cause of another error": (raised("TrainingError", "no batch", 1, trace=f"RuntimeError: {LOADER}\n\nThe above exception"), MEMORY),
    "a loader's child on a full /dev/shm": (raised("RuntimeError", "DataLoader worker (pid(s) 1) exited unexpectedly", 1, trace="RuntimeError: DataLoader worker (pid 1) is killed by signal: Bus error. It is"), GONE),
    "torch's own words of it": (raised("RuntimeError", "unable to write to file </torch_12_34_0>: No space left on device (28)"), GONE),
    "the same of a disk": (raised("OSError", "[Errno 28] No space left on device: '/data/x'"), CODE),
    "an exception while the group counted one": (raised("ValueError", "x", 1), CODE),
    "SIGSEGV while the group counted one": (died(11, kills=1), CODE),
    "SIGBUS": (died(7), GONE),
    "SIGTERM": (died(15), ASKED),
    "SIGINT": (died(2), ASKED),
    "SIGHUP": (died(1), ASKED),
    "KeyboardInterrupt": (raised("KeyboardInterrupt"), ASKED),
    "SIGSEGV": (died(11), CODE),
    "SIGABRT": (died(6), CODE),
    "SIGFPE": (died(8), CODE),
    "a real-time signal": (died(40), CODE),
    "gloo's timeout": (raised("RuntimeError", GLOO), HANG),
    "NCCL's timeout": (raised("DistBackendError", NCCL), HANG),
    "NCCL's watchdog's abort": (died(6, NCCL), HANG),
    "the store's timeout": (raised("DistStoreError", STORE), HANG),
    "the store's timeout at the start": (raised("DistStoreError", CLIENTS), HANG),
    "the same words of somebody else": (raised("BillingError", STORE), CODE),
    "the same words of a program that printed them": (ended(1, GLOO), HANG),
    "a timeout of the user's own": (raised("TimeoutError", "timed out"), CODE),
    "a peer that went away": (raised("RuntimeError", PEER), GONE),
    "a peer of the user's own": (raised("ConnectionResetError", "Connection closed by peer"), CODE),
}  # fmt: skip


@pytest.mark.parametrize(("found", "failure_class"), TABLE.values(), ids=TABLE.keys())
def test_each_end_has_one_class(found: Found, failure_class: FailureClass) -> None:
    assert classify(*found) is failure_class


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_every_signal_has_a_class(number: int) -> None:
    assert classify(*died(number)) in FailureClass


@pytest.mark.parametrize(
    ("found", "echo"),
    [
        (raised("RuntimeError", PEER), True),
        (raised("DistBackendError", "NCCL error: ncclRemoteError: A call failed"), True),
        (raised("DistNetworkError", "failed to recv, got 0 bytes. Connection was likely closed."), True),
        ((-9, ErrorNote(kind="RuntimeError", text=PEER), None), True),
        (died(9, PEER), False),
        (raised("ValueError", PEER), False),
        (raised("RuntimeError", GLOO), False),
        (ended(1), False),
        (raised("llutil.errors.CheckpointPeerError", "rank 0 failed in it"), True),
        (raised("llutil.errors.CheckpointAbandonedError", "step 9 was removed"), True),
        (raised("CheckpointStoreError", "full"), False),
        (raised("CheckpointError", "rank 1 is at step 3"), False),
    ],
    ids=[
        *("gloo", "NCCL", "the store", "killed after it", "killed", "another's", "a hang", "an exit"),
        *("a peer's save", "an abandoned save", "an own store", "an own save"),
    ],
)  # fmt: skip
def test_an_echo_says_only_that_a_peer_went_away(found: Found, echo: bool) -> None:
    assert only_reports_peer(*found[:2]) is echo


@pytest.mark.parametrize(
    "piece", ["gloo/transport/", "NCCL", "DataLoader worker (pid 1) ", "Timed out waiting 1", "x: "]
)
def test_a_message_of_60_kb_is_classified_in_no_time(piece: str) -> None:
    found = raised("RuntimeError", piece * (60_000 // len(piece)), 1)
    took = []
    for _ in range(3):  # something else may take this thread's time, as the garbage collector does
        began = time.thread_time()
        assert classify(*found) is CODE
        assert not only_reports_peer(*found[:2])
        took.append(time.thread_time() - began)
    assert min(took) < 0.1


def test_words_count_in_one_line_and_in_their_order() -> None:
    for text in ("gloo/transport/\nBroken pipe", "Broken pipe at gloo/transport/"):
        assert not only_reports_peer(*raised("RuntimeError", text)[:2])
    assert only_reports_peer(
        *raised("RuntimeError", "x\n[gloo/transport/a.cc:1] Broken pipe\ny")[:2]
    )


TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "    x()"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([*TRACE, "ValueError: no such digit"], ("ValueError", "no such digit")),
        ([*TRACE, "torch.OutOfMemoryError: CUDA out of memory", "bye"], ("torch.OutOfMemoryError", "CUDA out of memory")),
        ([*TRACE, "KeyError: 'x'", "", "During handling", "", *TRACE, "OSError"], ("OSError", "")),
        (["ValueError: not in a traceback"], None),
        (TRACE, None),
        ([], None),
    ],
    ids=["plain", "dotted", "the last of a chain", "a word", "cut off", "nothing"],
)  # fmt: skip
def test_the_error_that_a_program_printed_is_found(
    lines: list[str], found: tuple[str, str] | None
) -> None:
    assert printed_error(lines) == found
