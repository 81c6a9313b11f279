"""What is said when a rank fails: one screen that begins with the cause."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.agent.outcome import ErrorNote, Returned
from llutil.agent.report import (
    FailureReport,
    RemoteReport,
    WorkersFailed,
    first_failure,
    process_failures,
)
from llutil.agent.workers import Ended
from llutil.errors import FailureClass

TRACE = (
    "Traceback (most recent call last):\n"
    '  File "train.py", line 7, in train\n'
    "    raise ValueError('no such digit')\n"
    "ValueError: no such digit\n"
)
RAISED = ErrorNote(kind="ValueError", text="no such digit", trace=TRACE, at=5.0)
STOPPED = -15


def ended(
    rank: int,
    status: int = 0,
    note: Returned | ErrorNote | None = None,
    *,
    failed: bool = True,
    tail: tuple[str, ...] = (),
    at: float = 10.0,
) -> Ended:
    return Ended(
        rank=rank,
        local_rank=rank % 2,
        pid=1000 + rank,
        status=status,
        note=note,
        tail=tail,
        failed=failed,
        at=at,
    )


def report(first: Ended, *others: Ended) -> FailureReport:
    return FailureReport(
        name="train", restart=3, max_restarts=3, first=first, others=others, log_folder="/logs"
    )


def text_of(first: Ended, *others: Ended) -> str:
    return report(first, *others).text.replace(socket.gethostname(), "HOST")


def test_an_exception_is_told_with_its_traceback() -> None:
    assert text_of(ended(1, 1, RAISED)) == (
        "train failed: rank 1: ValueError: no such digit\n"
        "  rank 1 (local rank 1) on HOST, pid 1001, after 3 of 3 restarts\n"
        "\n"
        "Traceback (most recent call last):\n"
        '  File "train.py", line 7, in train\n'
        "    raise ValueError('no such digit')\n"
        "ValueError: no such digit\n"
        "\n"
        "logs of every rank: /logs"
    )


def test_a_signal_is_told_by_name_with_its_meaning_and_the_last_words() -> None:
    tail = tuple(f"line {number}" for number in range(20))
    assert text_of(ended(0, -9, tail=tail)) == (
        "train failed: rank 0: signal 9 (SIGKILL: often the kernel's out-of-memory killer, or somebody's kill -9)\n"
        "  rank 0 (local rank 0) on HOST, pid 1000, after 3 of 3 restarts\n"
        "\n"
        "the last lines of its standard error:\n"
        + "".join(f"  line {number}\n" for number in range(8, 20))
        + "\n"
        "logs of every rank: /logs"
    )


def test_an_end_without_a_value_is_told_as_that() -> None:
    assert text_of(ended(0, 0)).startswith(
        "train failed: rank 0: ended with exit code 0 but returned no value (os._exit, or an "
        "interrupted write)\n"
    )


def test_an_exit_code_is_told_as_it_is() -> None:
    assert text_of(ended(0, 3)).startswith("train failed: rank 0: exit code 3\n")


def test_many_ranks_are_folded() -> None:
    others = [
        *(ended(rank, 1, replace(RAISED, text=f"rank {rank}")) for rank in range(2, 9)),
        *(ended(rank, STOPPED) for rank in (9, 10, 11, 13)),
    ]
    assert text_of(ended(1, 1, RAISED), *others).endswith(
        "\n"
        "rank 2 failed after it: ValueError: rank 2\n"
        "rank 3 failed after it: ValueError: rank 3\n"
        "rank 4 failed after it: ValueError: rank 4\n"
        "rank 5 failed after it: ValueError: rank 5\n"
        "and 3 more ranks failed after it\n"
        "ranks ended because of it: 9-11, 13\n"
        "logs of every rank: /logs"
    )


def test_a_rank_that_said_why_it_failed_failed_even_if_a_signal_ended_it_then() -> None:
    text = text_of(ended(1, 1, RAISED), ended(2, STOPPED, replace(RAISED, text="me too")))
    assert "rank 2 failed after it: ValueError: me too\n" in text
    assert "ended because of it" not in text


def test_ranks_that_had_ended_well_are_not_among_those_that_were_ended() -> None:
    text = text_of(
        ended(1, 1, RAISED),
        ended(0, 0, Returned(b"", pickled=True), failed=False),
        ended(2, STOPPED),
    )
    assert "ranks ended because of it: 2\n" in text


@pytest.mark.parametrize(
    "note",
    [
        replace(RAISED, text="one\n" * 1000, trace=TRACE * 1000),
        replace(RAISED, text="x" * 1_000_000, trace="y" * 1_000_000),
        replace(RAISED, text="a\nb", trace=""),
        replace(RAISED, text="", trace=""),
    ],
    ids=["many lines", "long lines", "no traceback", "nothing"],
)
def test_a_report_is_one_screen_whatever_the_error_says(note: ErrorNote) -> None:
    others = [ended(rank, 1, note) for rank in range(1, 200)]
    lines = text_of(ended(0, 1, note, tail=("z" * 100_000,) * 20), *others).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 600
    assert lines[0].startswith("train failed: rank 0: ValueError")


def test_an_error_without_a_traceback_is_told_in_full() -> None:
    """Our own words have none, and they may be a list."""
    note = replace(RAISED, text="2 things are wrong:\n  - one\n  - two", trace="")
    assert "\n2 things are wrong:\n  - one\n  - two\n" in text_of(ended(0, 1, note))


def test_the_first_failure_is_the_earliest_by_the_ranks_own_word() -> None:
    own_word = replace(RAISED, at=5.0)
    candidates = [
        ended(0, 0, Returned(b"", pickled=True), failed=False, at=1.0),
        ended(1, STOPPED, at=6.0),
        ended(2, 1, own_word, at=own_word.at),
    ]
    assert first_failure(candidates).rank == 2


@pytest.mark.parametrize(
    ("note", "failure_class", "fatal"),
    [
        (RAISED, FailureClass.USER_CODE, False),
        (None, FailureClass.USER_CODE, False),
        (replace(RAISED, fatal=True), FailureClass.USER_CODE, True),
        (replace(RAISED, fatal=True, bad_configuration=True), FailureClass.BAD_CONFIGURATION, True),
    ],
    ids=["raised", "died", "value", "load"],
)
def test_the_class_and_whether_a_restart_can_help(
    note: ErrorNote | None, failure_class: FailureClass, fatal: bool
) -> None:
    found = report(ended(0, 1, note))
    assert (found.failure_class, found.fatal) == (failure_class, fatal)


def test_the_error_is_torchs_and_holds_the_report_as_a_value(tmp_path: Path) -> None:
    made = report(ended(1, 1, RAISED), ended(0, STOPPED), ended(2, 7))
    error = WorkersFailed(made, process_failures(made, {1: tmp_path / "error.json"}))
    assert isinstance(error, ChildFailedError)
    assert str(error) == made.text
    assert error.report is made
    assert error.failure_class is FailureClass.USER_CODE
    assert list(error.failures) == [1, 2], "those that failed, the first of them first"
    assert error.get_first_failure()[0] == 1
    assert (error.failures[2].exitcode, error.failures[2].pid) == (7, 1002)


def test_a_failure_elsewhere_is_torchs_error_too() -> None:
    error = WorkersFailed(RemoteReport("train", "rank 7: ValueError: x", None, None), {})
    assert isinstance(error, ChildFailedError)
    assert str(error).startswith("train failed: rank 7: ValueError: x\n")
    assert "no rank of this node failed by itself" in str(error)
