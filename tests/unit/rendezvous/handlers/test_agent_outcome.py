"""What the error with which torch's agent ended means for the other nodes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousTimeoutError

from llutil.failure import JobFailure
from llutil.rendezvous.handlers.agent_outcome import failure_of_job


def failed_with(folder: Path, message: Any, exitcode: int = 1) -> JobFailure:
    """What is told if rank 3 fails, and its error file holds ``message``; None: it has none."""
    file = folder / "error.json"
    if message is not None:
        file.write_text(json.dumps({"message": message, "timestamp": 1}))
    failed = ProcessFailure(local_rank=1, pid=4711, exitcode=exitcode, error_file=str(file))
    failure = failure_of_job(ChildFailedError("train", {3: failed}), group_rank=2)
    assert failure is not None
    return failure


RAISED = {
    "message": "ValueError: no luck\nsee above",
    "extraInfo": {"py_callstack": "Traceback ...\nValueError: no luck", "timestamp": "1"},
}


def test_a_failed_rank_is_told_with_its_error(tmp_path: Path) -> None:
    told = failed_with(tmp_path, RAISED)
    assert told.fatal
    assert told.why == "rank 3: ValueError: no luck"
    assert told.failure is not None
    assert (told.failure.rank, told.failure.local_rank, told.failure.group_rank) == (3, 1, 2)
    assert told.failure.trace == "Traceback ...\nValueError: no luck"


@pytest.mark.parametrize(
    ("message", "exitcode", "why"),
    [
        (None, 7, "rank 3: exit code 7"),
        (None, -signal.SIGSEGV, "rank 3: signal 11 (SIGSEGV: a memory fault in native code)"),
        ("out of luck", 1, "rank 3: out of luck"),
        ("", 1, "rank 3: exit code 1"),
        ({"message": "", "extraInfo": {"timestamp": "1"}}, 1, "rank 3: exit code 1"),
    ],
)
def test_a_failed_rank_is_told_by_what_is_known(
    tmp_path: Path, message: Any, exitcode: int, why: str
) -> None:
    assert failed_with(tmp_path, message, exitcode).why == why


def test_what_is_told_fits_into_a_ledger(tmp_path: Path) -> None:
    extra = {"py_callstack": "x" * 100_000, "timestamp": "1"}
    told = failed_with(tmp_path, {"message": "y" * 100_000, "extraInfo": extra})
    assert told.failure is not None
    assert len(told.why) + len(told.failure.reason) + len(told.failure.trace) < 6000


def test_any_other_error_of_an_agent_ends_the_job() -> None:
    told = failure_of_job(FileNotFoundError("no train.py"), 0)
    assert told is not None
    assert told.fatal
    assert told.why == "its agent ended with FileNotFoundError: no train.py"


@pytest.mark.parametrize(
    "error",
    [
        SignalException("preempted", signal.SIGTERM),
        DistNetworkError("no route"),
        DistStoreError("no answer"),
        RendezvousTimeoutError("nobody came"),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_a_signal_or_a_lost_connection_concerns_one_node_alone(error: BaseException) -> None:
    assert failure_of_job(error, 0) is None
