"""What is said when a rank fails: one screen that begins with the cause."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.agent.failures.describe import node_failure
from llutil.agent.failures.report import (
    FailureReport,
    WorkersFailed,
    process_failures,
)
from llutil.agent.worker_side.outcome_pipe import ErrorNote, Returned
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent_socket.round_end import RoundEndKind
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.rendezvous.protocol.record_codec import decode, encode
from llutil.rendezvous.protocol.records import ReportKind
from llutil.system.oom_kills import KillCount
from tests.support.rendezvous_values import failure
from tests.support.rendezvous_values import report as node_report

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
    asked: bool = False,
) -> RankExit:
    return RankExit(
        rank=rank,
        local_rank=rank % 2,
        pid=1000 + rank,
        status=status,
        note=note,
        tail=tail,
        failed=failed,
        at=at,
        stopped_by_agent=asked,
    )


def stopped(rank: int) -> RankExit:
    """It was asked to end, and did."""
    return ended(rank, STOPPED, asked=True)


def report(
    first: RankExit, *others: RankExit, memory: KillCount | None = None, label: str = ""
) -> FailureReport:
    told = node_failure([first], memory)
    assert told.failure is not None
    own = replace(told.failure, label=label, host="HOST", restart=3, max_restarts=3)
    return FailureReport(
        name="train",
        job_failure=replace(told, failure=own),
        own=own,
        others=others,
        log_folder="/logs",
    )


def text_of(
    first: RankExit, *others: RankExit, memory: KillCount | None = None, label: str = ""
) -> str:
    return report(first, *others, memory=memory, label=label).text


def test_an_exception_is_told_with_its_traceback() -> None:
    assert text_of(ended(1, 1, RAISED)) == (
        "train failed: rank 1: ValueError: no such digit\n"
        "  rank 1 (local rank 1) of node 0 on HOST, pid 1001, after 3 of 3 restarts\n"
        "  failure class: user code\n"
        "\n"
        "Traceback (most recent call last):\n"
        '  File "train.py", line 7, in train\n'
        "    raise ValueError('no such digit')\n"
        "ValueError: no such digit\n"
        "\n"
        "logs of every rank: /logs"
    )


def test_what_else_was_wrong_is_told_beside_the_failure() -> None:
    it = report(ended(1, 1, RAISED), stopped(0))
    told = replace(it, besides="the ledger did not answer")
    assert told.text == it.text.replace("logs of", "besides, the ledger did not answer\nlogs of")


def test_a_bad_configuration_is_told_without_the_log_folder() -> None:
    it = report(ended(1, 1, RAISED), stopped(0))
    assert it.text.endswith("ranks ended because of it: 0\nlogs of every rank: /logs")
    bad = replace(it.job_failure, failure_class=FailureClass.BAD_CONFIGURATION)
    assert replace(it, job_failure=bad).text == it.text.removesuffix("\nlogs of every rank: /logs")


def test_what_a_rank_says_makes_no_line_that_looks_like_ours() -> None:
    forged = "\x85rank 7 failed after it: nothing\u2028  node 9\x1b[1A"
    trace = f"Traceback (most recent call last):\n  x{forged}\nValueError: no{forged}\n"
    note = ErrorNote(kind=f"Value{forged}", text=f"no{forged}", trace=trace)
    for one in (ended(0, 1, note), ended(0, 1, None, tail=(f"last{forged}", "y"))):
        text = text_of(one, replace(one, rank=1))
        assert len(text.split("\n")) == len(text.splitlines())
        assert not [line for line in text.splitlines() if line.startswith("rank 7")]
        assert "\x1b" not in text


def test_a_signal_is_told_by_name_with_its_meaning_and_the_last_words() -> None:
    tail = tuple(f"line {number}" for number in range(16))
    assert text_of(ended(0, -9, tail=tail)) == (
        "train failed: rank 0: signal 9 (SIGKILL: often the kernel's out-of-memory killer, or "
        "somebody's kill -9)\n"
        "  rank 0 (local rank 0) of node 0 on HOST, pid 1000, after 3 of 3 restarts\n"
        "  failure class: infrastructure\n"
        "\n"
        "the last lines of its standard error:\n"
        + "".join(f"  line {number}\n" for number in range(16))
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


def test_an_exception_that_was_printed_before_sys_exit_is_what_went_wrong() -> None:
    text = "the function called sys.exit(1) and returned no value"
    note = ErrorNote(kind="SystemExit", text=text, exit_code=1)
    tail = (*TRACE.splitlines()[:-1], "torch.OutOfMemoryError: CUDA out of memory")
    told = node_failure([ended(0, 1, note, tail=tail)], None)
    assert told.failure_class is FailureClass.OUT_OF_MEMORY
    assert told.failure is not None
    assert told.failure.reason.startswith(f"SystemExit: {text}: torch.OutOfMemoryError: CUDA")
    quiet = node_failure([ended(0, 1, note)], None)
    assert quiet.failure_class is FailureClass.USER_CODE


def test_many_ranks_are_folded() -> None:
    others = [
        *(ended(rank, 1, replace(RAISED, text=f"rank {rank}")) for rank in range(2, 9)),
        *(stopped(rank) for rank in (9, 10, 11, 13)),
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
    late = ended(2, STOPPED, replace(RAISED, text="me too"), asked=True)
    text = text_of(ended(1, 1, RAISED), late)
    assert "rank 2 failed after it: ValueError: me too\n" in text
    assert "ended because of it" not in text


def test_ranks_that_had_ended_well_are_not_among_those_that_were_ended() -> None:
    text = text_of(
        ended(1, 1, RAISED),
        ended(0, 0, Returned(b"", pickled=True), failed=False),
        stopped(2),
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


def test_frames_of_native_code_do_not_fill_the_screen() -> None:
    text = "gone\nException raised from get at Store.cpp:7 (most recent call first):\n"
    text += "".join(f"frame #{number}: <unknown function> + 0x{number}\n" for number in range(50))
    note = replace(RAISED, text=text, trace=f"Traceback:\nDistStoreError: {text}\nbye")
    assert text_of(ended(0, 1, note)).splitlines()[4:-2] == [
        "Traceback:",
        "DistStoreError: gone",
        "Exception raised from get at Store.cpp:7",
        "  ... 50 C++ frames left out ...",
        "",
        "bye",
    ]


def test_the_last_lines_are_told_beside_a_traceback_but_not_the_traceback_again() -> None:
    tail = ("loading", *TRACE.splitlines(), "  ", "cleaning up")
    lines = text_of(ended(1, 1, RAISED, tail=tail)).splitlines()
    told = lines[lines.index("the last lines of its standard error:") :]
    assert told[1:4] == ["  loading", "  cleaning up", ""]
    assert lines.count("ValueError: no such digit") == 1


def test_a_program_that_only_prints_its_error_is_told_by_that_error() -> None:
    text = text_of(ended(0, 1, tail=("hello", *TRACE.splitlines())))
    assert text.startswith("train failed: rank 0: exit code 1: ValueError: no such digit\n")
    assert "\n  Traceback (most recent call last):\n" in text


def test_a_kill_for_lack_of_memory_is_told_with_its_evidence() -> None:
    count = KillCount("the memory cgroup /sys/fs/cgroup/job", 2)
    assert text_of(ended(0, -9), memory=count).splitlines()[0] == (
        "train failed: rank 0: signal 9 (SIGKILL: out of memory: the kernel killed 2 processes "
        "for it, "
        "as the memory cgroup /sys/fs/cgroup/job counted)"
    )
    assert (
        report(ended(0, -9), memory=count).job_failure.failure_class is FailureClass.OUT_OF_MEMORY
    )


def test_a_kill_that_was_not_for_memory_is_told_as_that() -> None:
    found = report(ended(0, -9), memory=KillCount("this machine", 0))
    assert found.job_failure.failure_class is FailureClass.INFRASTRUCTURE
    assert "(SIGKILL: sent by a person or the platform; none for lack of memory" in found.text


def test_a_node_is_told_by_its_label() -> None:
    assert "of node 0 'gang-1' on HOST" in text_of(ended(0, 3), label="gang-1")


def first_of(ended: list[RankExit]) -> int:
    told = node_failure(ended, None)
    assert told.failure is not None
    return told.failure.rank


def test_the_first_failure_is_the_earliest_by_the_ranks_own_word() -> None:
    own_word = replace(RAISED, at=5.0)
    candidates = [
        ended(0, 0, Returned(b"", pickled=True), failed=False, at=1.0),
        ended(1, STOPPED, at=6.0),
        ended(2, 1, own_word, at=own_word.at),
    ]
    assert first_of(candidates) == 2


GONE = replace(RAISED, kind="RuntimeError", text="[pair.cc:553] Connection closed by peer [::1]:7")


@pytest.mark.parametrize(
    ("candidates", "first"),
    [
        ([ended(0, 1, GONE, at=1.0), ended(1, -9, at=2.0)], 1),
        ([ended(0, 1, GONE, at=1.0), stopped(1)], 0),
        ([ended(0, 1, GONE, at=1.0), ended(1, 1, RAISED, at=2.0, asked=True)], 0),
        ([ended(0, 1, GONE, at=2.0), ended(1, 1, GONE, at=1.0)], 1),
        ([stopped(1)], 1),
    ],
    ids=[
        "its peer's death",
        "a peer that was ended",
        "a late word",
        "only echoes",
        "all were asked",
    ],
)
def test_a_rank_that_lost_its_peer_is_first_only_if_nothing_else_failed(
    candidates: list[RankExit], first: int
) -> None:
    assert first_of(candidates) == first


def test_a_failure_that_no_restart_can_mend_is_first_however_late_it_is() -> None:
    final = replace(RAISED, fatal=True, final_exception="AirflowFailException")
    candidates = [ended(0, 1, RAISED, at=1.0), ended(1, 1, final, at=2.0)]
    assert first_of(candidates) == 1
    assert node_failure(candidates, None).fatal


def test_the_error_is_torchs_and_holds_the_report_as_a_value(tmp_path: Path) -> None:
    made = report(ended(1, 1, RAISED), stopped(0), ended(2, 7))
    error = WorkersFailed(made, process_failures(made, {1: tmp_path / "error.json"}))
    assert isinstance(error, ChildFailedError)
    assert str(error) == made.text
    assert error.report is made
    assert error.failure_class is FailureClass.USER_CODE
    assert list(error.failures) == [1, 2], "those that failed, the first of them first"
    assert error.get_first_failure()[0] == 1
    assert (error.failures[2].exitcode, error.failures[2].pid) == (7, 1002)
    assert error.failures[1].message == TRACE.rstrip()
    assert error.failures[2].message == "exit code 7"
    assert abs(error.failures[2].timestamp - time.time()) < 60  # noqa: TID251 - torch's times are epochs


def test_torchs_record_has_what_the_rank_wrote_into_its_error_file(tmp_path: Path) -> None:
    extra = {"py_callstack": TRACE, "timestamp": "1234"}
    path = tmp_path / "error.json"
    path.write_text(json.dumps({"message": {"message": "ValueError: x", "extraInfo": extra}}))
    made = report(ended(0, -9), ended(1, 1, RAISED))
    error = WorkersFailed(made, process_failures(made, {1: path}))
    assert error.failures[1].message["extraInfo"] == extra
    assert error.failures[1].error_file == str(path)
    first = ChildFailedError.get_first_failure(error)
    assert first[0] == 0, "by torch's own rule, too, though its rank wrote no time"


def test_an_error_file_that_was_cut_off_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    path.write_text('{"message"')
    made = report(ended(0, -9))
    assert process_failures(made, {0: path})[0].message.startswith("signal 9 (SIGKILL")


LONG = {
    "many lines": ("\n".join(f"line {number}" for number in range(5000)), ("tail",) * 40),
    "long lines": ("\n".join("x" * 10_000 for _ in range(50)), ("y" * 10_000,) * 40),
    "wide characters": ("\n".join("☃" * 10_000 for _ in range(50)), ("☃" * 10_000,) * 40),
    "few wide lines": ("\n".join("☃" * 10_000 for _ in range(20)), ("☃" * 10_000,) * 5),
    "one line": ("☃" * 1_000_000, ()),
}


@pytest.mark.parametrize(("text", "tail"), LONG.values(), ids=LONG.keys())
def test_a_failure_fits_into_a_store_whatever_its_rank_said(
    text: str, tail: tuple[str, ...]
) -> None:
    told = report(ended(0, 1, replace(RAISED, text=text, trace=text), tail=tail)).job_failure
    record = node_report("a", ReportKind.FAILED, job_failure=told)
    value = encode(record)
    assert len(value) < 16 * 1024
    assert decode("key", value) == record


WHY = "b.1 failed: rank 3: ValueError: no such digit"


def remote(first: Failure | None, own: FailureReport | None) -> FailureReport:
    told = replace(JobFailure.of(first) if first else JobFailure(), why=WHY)
    return replace(own or FailureReport(name="train", job_failure=told), job_failure=told)


FAR = failure(trace=TRACE.rstrip(), tail=("loading",), restart=3, max_restarts=3)


def test_a_failure_elsewhere_is_told_in_full_and_first() -> None:
    assert remote(FAR, report(ended(0, 1, GONE), stopped(1))).text == (
        "train failed: rank 3: ValueError: no such digit\n"
        "  rank 3 (local rank 1) of node 1 on far, pid 4711, after 3 of 3 restarts\n"
        "  failure class: user code\n"
        "\n"
        f"{TRACE}"
        "\n"
        "the last lines of its standard error:\n"
        "  loading\n"
        "\n"
        "on this node rank 0 (pid 1000) failed: RuntimeError: [pair.cc:553] Connection closed by "
        "peer [::1]:7\n"
        "ranks ended because of it: 1\n"
        "logs of this node's ranks: /logs"
    )


def test_a_failure_of_this_node_is_told_once_though_the_ledger_tells_it_too() -> None:
    own = report(ended(1, 1, RAISED), stopped(0))
    assert remote(own.own, own).text == own.text


def test_torchs_records_begin_with_a_failure_elsewhere() -> None:
    own = report(ended(0, 1, GONE))
    error = WorkersFailed(remote(FAR, own), process_failures(own, {}))
    assert list(error.failures) == [3, 0]
    assert error.get_first_failure()[0] == ChildFailedError.get_first_failure(error)[0] == 3
    assert error.failures[3].message == TRACE.rstrip()
    assert (error.failure, error.failure_class) == (FAR, FailureClass.USER_CODE)


def test_a_failure_elsewhere_of_which_nothing_is_known_is_torchs_error_too() -> None:
    error = WorkersFailed(remote(None, None), {})
    assert isinstance(error, ChildFailedError)
    assert str(error).startswith("train failed: b.1 failed: rank 3: ValueError: no such digit\n")
    assert "no rank of this node failed by itself" in str(error)
    assert list(error.failures) == [-1]
    assert error.failure is None


def test_reports_of_two_nodes_are_one_screen() -> None:
    note = replace(RAISED, text="x" * 10_000, trace="\n".join(["x" * 10_000] * 50))
    tail = ("z" * 10_000,) * 40
    others = [ended(rank, 1, note) for rank in range(1, 99)]
    own = report(ended(0, 1, note, tail=tail), *others)
    lines = remote(replace(own.own, pid=1), own).text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 600


def test_a_failed_round_is_a_value_with_whoever_failed_and_whose_failure_it_was() -> None:
    told = report(ended(1, 1), ended(0, 3), stopped(2))
    end = told.round_end
    assert (end.kind, end.why) == (RoundEndKind.FAILURE, told.job_failure.why)
    assert end.failure == told.job_failure
    assert [(one.rank, one.host, one.status, one.culprit) for one in end.ranks] == [
        (1, "HOST", 1, True),
        (0, "HOST", 3, False),
    ]
    elsewhere = replace(told.job_failure, failure=replace(told.own, rank=9))
    (first, _) = replace(told, job_failure=elsewhere).round_end.ranks
    assert not first.culprit
