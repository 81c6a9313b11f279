"""What an agent says of its ranks when the ledger says no more."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    Worker,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.agent_job import AgentJob
from llutil.agent.event_loop import EventLoop
from llutil.agent.ledger_agent import LedgerAgent
from llutil.agent.observer import TerminalObserver
from llutil.agent.output.log_files import LogFolder, LogOptions
from llutil.agent.stop_signals import StopSignals
from llutil.agent.worker_side.outcome_pipe import ErrorNote, Note, Returned
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.agent.workers import rank_group
from llutil.entrypoint import Command, FunctionName
from llutil.errors import (
    RendezvousError,
    RendezvousTimeoutError,
    ResultError,
    ServerLostError,
    StoppedError,
)
from llutil.events.events import Events
from llutil.ledgers.served.job_server import JobServer
from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvousHandler
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.records import ReportKind
from tests.support.rendezvous_values import report, round_of
from tests.unit.agent.stand_ins import Guardian, Starter, group_of

RANKS = 2
AWAY = RendezvousError("the ledger is away")

WithRanks = Callable[[dict[int, Note]], LedgerAgent]


@pytest.fixture
def with_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WithRanks]:
    """An agent whose ranks have reported ``notes``, in the turn in which its ledger was lost."""
    monkeypatch.setattr(rank_group, "KILLED", 0.0)
    with EventLoop() as loop, StopSignals(loop) as signals, Events(folder=tmp_path) as events:
        starter = Starter({}, ())
        parts: dict[str, Any] = {"starter": starter, "guardian": Guardian(), "driver": None}

        def with_ranks(notes: dict[int, Note]) -> LedgerAgent:
            spec = WorkerSpec(
                role="trainer",
                local_world_size=RANKS,
                rdzv_handler=SingleNodeRendezvousHandler("run"),
                entrypoint="train",
                max_restarts=3,
            )
            agent = LedgerAgent(
                spec,
                _job(tmp_path, events),
                loop=loop,
                observer=TerminalObserver(),
                signals=signals,
                server=JobServer(),
                **parts,
            )
            agent._worker_group.workers = [Worker(rank, rank) for rank in range(RANKS)]
            agent._workers = group_of(RANKS, Starter(notes, tuple(range(RANKS))), loop)
            agent._driver_error = AWAY
            return agent

        yield with_ranks


def _job(folder: Path, events: Events) -> AgentJob:
    return AgentJob(
        name="train",
        order=WorkOrder(
            entrypoint=Command("train"),
            sys_path=(),
            result_limit=None,
            kept_folder=str(folder / "kept"),
        ),
        mark="",
        grace_period=0.0,
        restart_grace=0.0,
        exit_timeout=0.0,
        hang_timeout=None,
        checkpoints={},
        chaos={},
        save_period=None,
        line_prefix=None,
        signals="",
        shared=None,
        cpus=(),
        timer_file="",
        logs=LogFolder(LogOptions(base=str(folder)), "run"),
        events=events,
    )


def test_kills_for_lack_of_memory_before_a_round_are_not_its_own(
    with_ranks: WithRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = with_ranks({})
    since_it_was_made = agent._oom_watch  # it may have waited for other nodes for long

    def begins(plans: list[Any]) -> None:
        raise StoppedError("the ranks would be started now")

    for name, value in (("_round_name", str), ("_rank_plan", replace), ("_new_workers", begins)):
        monkeypatch.setattr(agent, name, value)
    agent._worker_group.workers = []
    with pytest.raises(StoppedError):
        agent._start_workers(agent._worker_group)
    assert agent._oom_watch is not since_it_was_made


def test_a_failure_in_the_turn_in_which_the_ledger_is_lost_is_the_jobs(
    with_ranks: WithRanks,
) -> None:
    agent = with_ranks({1: ErrorNote(kind="ValueError", text="no such data", at=1.0)})
    result = agent._carry_out_instructions()
    assert result.state is WorkerState.FAILED
    assert agent.report is not None
    assert agent.report.own is not None
    assert (agent.report.own.rank, agent.report.besides) == (1, str(AWAY))


def test_values_that_come_in_the_turn_in_which_the_ledger_is_lost_are_kept(
    with_ranks: WithRanks, tmp_path: Path
) -> None:
    values = {rank: Returned(str(rank).encode(), pickled=False) for rank in range(RANKS)}
    with pytest.raises(RendezvousError, match=r"away; all ranks of this node had succeeded"):
        with_ranks({**values})._carry_out_instructions()
    kept = sorted(path.read_text() for path in (tmp_path / "kept").iterdir())
    assert kept == ["0", "1"]


def test_ranks_that_are_stopped_when_the_ledger_is_lost_have_not_succeeded(
    with_ranks: WithRanks,
) -> None:
    value = Returned(b"7", pickled=False)
    with pytest.raises(RendezvousError, match=r"away; rank 1 of this node had succeeded"):
        with_ranks({1: value})._carry_out_instructions()
    with pytest.raises(RendezvousError, match=r"^the ledger is away$"):
        with_ranks({})._carry_out_instructions()


GONE = do.GaveUp("the ledger has gone for good", ledger_away=True, gone=True)
OWN = ErrorNote(kind="ValueError", text="no such data", at=1.0)
ECHO = ErrorNote(kind="DistBackendError", text="Connection closed by peer [10.0.0.1]", at=1.0)


class Driver:
    """One that hears what is said, and says nothing."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, observation: Any) -> None:
        self.told.append(observation)


def _ends_since_it_is_gone(agent: LedgerAgent) -> RunResult:
    """How ``agent`` ends if its ranks end, and its ledger has gone meanwhile."""
    driver = Driver()
    agent._driver, agent._driver_error = driver, None  # type: ignore[assignment]  # a stand-in
    agent._assignment = round_of("a")
    agent._end_own_round()
    (ended,) = driver.told
    say = ReportKind.FAILED if ended.job_failure else ReportKind.SUCCEEDED
    outcome = report("a", say, job_failure=ended.job_failure)
    agent._instructions.append(do.Finish(replace(GONE, outcome=outcome)))
    return agent._carry_out_instructions()


def test_a_rank_that_failed_by_itself_is_told_though_the_server_is_gone(
    with_ranks: WithRanks,
) -> None:
    agent = with_ranks({1: OWN})
    assert _ends_since_it_is_gone(agent).state is WorkerState.FAILED
    assert agent.report is not None
    assert agent.report.job_failure.why.startswith("rank 1: ValueError: no such data; besides, ")
    assert "has gone for good" in agent.report.besides


def test_a_rank_that_only_missed_a_peer_waits_for_the_servers_next_try(
    with_ranks: WithRanks,
) -> None:
    agent = with_ranks({0: ECHO, 1: ECHO})
    with pytest.raises(ServerLostError) as raised:
        _ends_since_it_is_gone(agent)
    assert str(raised.value) == (
        "run 'run': the ledger has gone for good; what failed here only missed a peer: "
        "rank 0: DistBackendError: Connection closed by peer [10.0.0.1]"
    )


def test_ranks_that_succeeded_without_a_server_have_their_values_kept(
    with_ranks: WithRanks, tmp_path: Path
) -> None:
    values = {rank: Returned(str(rank).encode(), pickled=False) for rank in range(RANKS)}
    with pytest.raises(ServerLostError, match=r"for good; all ranks of this node had succeeded"):
        _ends_since_it_is_gone(with_ranks({**values}))
    kept = sorted(path.read_text() for path in (tmp_path / "kept").iterdir())
    assert kept == ["0", "1"]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (GONE, ServerLostError),
        (replace(GONE, gone=False), RendezvousError),
        (do.GaveUp("too few came"), RendezvousTimeoutError),
    ],
)
def test_a_node_that_never_had_ranks_says_what_it_waited_for(
    with_ranks: WithRanks, end: do.GaveUp, kind: type[RendezvousError]
) -> None:
    agent = with_ranks({})
    agent._workers, agent._driver_error = None, None
    agent._instructions.append(do.Finish(end))
    with pytest.raises(RendezvousError, match=f"^run 'run': {end.why}$") as raised:
        agent._carry_out_instructions()
    assert type(raised.value) is kind


VALUES: dict[int, Note] = {
    rank: Returned(str(rank).encode(), pickled=False) for rank in range(RANKS)
}


class SilentDriver:
    """A driver that hears everything and says nothing."""

    change_fd = -1

    def start(self) -> None:
        pass

    def tell(self, _observation: object) -> None:
        pass


def test_values_of_a_node_that_is_stopped_while_it_waits_for_others_are_kept(
    with_ranks: WithRanks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = with_ranks({})
    agent._workers, agent._values = None, dict(VALUES)
    agent._driver = SilentDriver()  # type: ignore[assignment]
    monkeypatch.setattr(agent._loop, "watch", lambda *_: None)

    def stopped() -> RunResult:
        raise SignalException("a stop", signal.SIGTERM)

    monkeypatch.setattr(agent, "_carry_out_instructions", stopped)
    with pytest.raises(SignalException):
        agent._invoke_run()
    assert "all ranks of this node had succeeded" in caplog.text
    assert sorted(path.read_text() for path in (tmp_path / "kept").iterdir()) == ["0", "1"]


@pytest.mark.parametrize(
    ("limit", "took_part", "is_lost"), [(None, True, True), (0, True, False), (None, False, False)]
)
def test_a_late_node_whose_ranks_had_values_says_that_they_are_lost(
    with_ranks: WithRanks, limit: int | None, took_part: bool, is_lost: bool
) -> None:
    agent = with_ranks({})
    order = msgspec.structs.replace(
        agent._job.order, entrypoint=FunctionName("m:f", b""), result_limit=limit
    )
    agent._job = replace(agent._job, order=order)
    end = do.Late("the job is over", took_part=took_part)
    if is_lost:
        with pytest.raises(ResultError, match=r"had ranks in that job.*another rerun token"):
            agent._finish(end)
    else:
        assert agent._finish(end).state is WorkerState.SUCCEEDED
