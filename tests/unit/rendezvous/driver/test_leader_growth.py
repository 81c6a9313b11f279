"""What a leader does for one more node or report takes as many steps of Python among a thousand as
among a hundred.

Steps are counted, not seconds: the interpreter's own instructions, in all that a driver does with a
view of the ledger. What a built-in function does with a tuple or a set is one step; at a thousand
nodes that is microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llutil.ledgers.protocol import Record as Stored
from llutil.ledgers.protocol import View
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.records import Cause, Record, Report, ReportKind, Verdict
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.memory_rendezvous import RUN
from tests.support.python_steps import Steps
from tests.support.rendezvous_values import job_failure, member, report, rules

FEW, MANY = 100, 1000
ECHO = job_failure("a peer is gone", echo=True)


class Leader:
    """Node n0, which leads a job of ``nodes`` nodes, and what the ledger shows it. ``steps`` counts
    what it does for what is shown within ``steps.counting``.
    """

    def __init__(self, nodes: int, least: int | None = None, **others: Any) -> None:
        self.steps = Steps()
        self.records: list[Record] = []
        """What it has written."""
        self.wait = ""
        self._reader = RecordReader(RUN)
        self._machine = Machine(rules(least or nodes, nodes, **others), member("n0"))
        self._members: tuple[Stored, ...] = ()
        self._reports: tuple[Stored, ...] = ()
        self._revision = 0
        for observation in (see.Ticked(), see.LeaseTaken(1, 0.0), see.Joined(2, (), RunHistory())):
            self.sees(observation)

    def sees(self, observation: see.Observation, now: float = 0.0) -> None:
        answers: list[see.Observation] = []
        for instruction in self._machine.step(observation, now):
            match instruction:
                case do.OpenStore(stage=stage):
                    answers.append(see.StoreOpened(stage, "10.0.0.1", 29500))
                case do.Create(ticket=ticket, records=records):
                    self.records += records
                    own = [self._put(one) for one in records if isinstance(one, Report)]
                    self._reports += tuple(own)
                    answers.append(see.Created(ticket))
                case do.WatchReports():
                    self._reports = ()
                case do.Wait(why=why):
                    self.wait = why
        for answer in answers:
            self.sees(answer, now)

    def _put(self, record: Record) -> Stored:
        self._revision += 1
        return Stored(RUN.key(record), encode(record), self._revision, "lease")

    def arrival(self, number: int) -> Callable[[], None]:
        """What shows that a node has come."""
        self._members += (self._put(member(f"n{number}")),)
        view = View(self._members, self._revision)
        return lambda: self.sees(see.MembersSeen(self._reader.read_members(view)))

    def loss(self, number: int) -> Callable[[], None]:
        """What shows that a node is gone."""
        key = RUN.key(member(f"n{number}"))
        self._members = tuple(one for one in self._members if one.key != key)
        view = View(self._members, self._revision)
        return lambda: self.sees(see.MembersSeen(self._reader.read_members(view)))

    def report(self, number: int, say: ReportKind, **others: Any) -> Callable[[], None]:
        """What shows that a node has reported on the newest round."""
        stage = self._machine.state.log.stage
        self._reports += (self._put(report(f"n{number}", say, stage, **others)),)
        view = View(self._reports, self._revision)
        return lambda: self.sees(see.ReportsSeen(stage, self._reader.read_reports(view)))

    def end(self, cause: Cause) -> None:
        """The round that runs has ended, and this node's own workers are gone."""
        verdict = self.records[-1]
        assert isinstance(verdict, Verdict)
        assert verdict.cause is cause
        self.sees(see.WorkersStopped(verdict.stage))


def _running(nodes: int, **others: Any) -> Leader:
    leader = Leader(nodes, **others)
    for number in range(nodes):
        leader.arrival(number)()
    assert leader.wait == f"0 of {nodes} nodes have succeeded"
    return leader


def _steps_for(leader: Leader, happen: Callable[[], None]) -> int:
    with leader.steps.counting():
        happen()
    return leader.steps.count


def _one_more_node(nodes: int) -> int:
    leader = Leader(nodes + 1)
    for number in range(nodes - 1):
        leader.arrival(number)()
    steps = _steps_for(leader, leader.arrival(nodes - 1))
    assert leader.wait == f"{nodes} of {nodes + 1} nodes are here"
    return steps


def _one_node_beside_a_full_round(nodes: int) -> int:
    leader = _running(nodes)
    leader.arrival(nodes)()
    steps = _steps_for(leader, leader.arrival(nodes + 1))
    assert leader.wait == f"0 of {nodes} nodes have succeeded"
    return steps


def _one_more_success(nodes: int) -> int:
    leader = _running(nodes)
    for number in range(1, nodes // 2):
        leader.report(number, ReportKind.SUCCEEDED)()
    steps = _steps_for(leader, leader.report(nodes - 1, ReportKind.SUCCEEDED))
    assert leader.wait == f"{nodes // 2} of {nodes} nodes have succeeded"
    return steps


def _one_more_echo(nodes: int) -> int:
    leader = _running(nodes)
    for number in range(1, nodes // 2):
        leader.report(number, ReportKind.FAILED, job_failure=ECHO)()
    steps = _steps_for(leader, leader.report(nodes - 1, ReportKind.FAILED, job_failure=ECHO))
    assert "may still report the cause" in leader.wait
    return steps


def _one_more_node_that_is_back(nodes: int, **others: Any) -> int:
    leader = _running(nodes, least=1, **others)
    leader.report(1, ReportKind.FAILED, job_failure=job_failure("boom"))()
    leader.end(Cause.FAILED)
    for number in range(1, nodes // 2):
        leader.report(number, ReportKind.BACK)()
    steps = _steps_for(leader, leader.report(nodes - 1, ReportKind.BACK))
    assert f"still stopping workers: n{nodes // 2}.1, " in leader.wait
    return steps


def _one_more_after_the_last_failure(nodes: int) -> int:
    return _one_more_node_that_is_back(nodes, max_restarts=0)


def _one_loss_while_others_come_back(nodes: int) -> int:
    leader = _running(nodes)
    leader.report(1, ReportKind.FAILED, job_failure=job_failure("boom"))()
    leader.end(Cause.FAILED)
    for number in range(1, nodes // 2):
        leader.report(number, ReportKind.BACK)()
    steps = _steps_for(leader, leader.loss(nodes - 1))
    assert f"of {nodes} nodes are here" in leader.wait
    return steps


@pytest.mark.parametrize(
    "steps_for",
    [
        _one_more_node,
        _one_node_beside_a_full_round,
        _one_more_success,
        _one_more_echo,
        _one_more_node_that_is_back,
        _one_more_after_the_last_failure,
        _one_loss_while_others_come_back,
    ],
    ids=lambda steps_for: steps_for.__name__.strip("_").replace("_", "-"),
)
def test_a_leader_needs_no_more_steps_among_many(steps_for: Callable[[int], int]) -> None:
    few, many = steps_for(FEW), steps_for(MANY)
    print(few, many)
    assert many <= few + 60, f"{few} steps among {FEW} nodes, {many} among {MANY}"


def test_the_seal_of_many_is_one_write_and_costs_each_member_some_steps() -> None:
    few, many = (_seal(nodes) for nodes in (FEW, MANY))
    print(few, many)
    assert many <= few * (MANY / FEW) * 1.2


def _seal(nodes: int) -> int:
    leader = Leader(nodes)
    for number in range(nodes - 1):
        leader.arrival(number)()
    before = len(leader.records)
    steps = _steps_for(leader, leader.arrival(nodes - 1))
    assert len(leader.records) == before + 1
    assert not isinstance(leader.records[-1], Report)
    return steps
