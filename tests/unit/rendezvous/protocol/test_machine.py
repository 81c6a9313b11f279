"""One node's machine: observations in, instructions out, by the nine rules; no store, no thread, no
clock.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from llutil.failure import FailureClass, JobFailure
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.records import Assignment, Cause, Marker, Report, ReportKind, Stage
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import (
    job_failure,
    marker,
    member,
    report,
    round_of,
    rules,
    seat,
    verdict,
)

FIRST = Stage(1, 1)


def brief(instruction: do.Instruction) -> str:
    """An instruction in a few words."""
    match instruction:
        case do.Create(records=records):
            words = [
                record.say.value if isinstance(record, Report) else type(record).__name__.lower()
                for record in records
            ]
            return f"Create {' + '.join(words)}"
        case do.WatchPredecessor(name=name):
            return f"WatchPredecessor {name}"
        case do.Finish(end=end):
            return f"Finish {type(end).__name__}"
        case do.WatchReports(stage=stage) | do.OpenStore(stage=stage):
            return f"{type(instruction).__name__} {stage.generation}.{stage.round}"
        case do.StopWorkers(round_failed=True):
            return "StopWorkers failed"
        case do.DeleteStale(before=before):
            return f"Sweep {before.generation}.{before.round}"
        case _:
            return type(instruction).__name__


class Node:
    """A machine and its last answer; requests are answered by hand."""

    def __init__(self, name: str = "a", least: int = 2, most: int = 2, **others: Any) -> None:
        profile = {key: others.pop(key) for key in ("token", "index", "label") if key in others}
        self.machine = Machine(rules(least, most, **others), member(name, **profile))
        self.now = 0.0
        self.last: tuple[do.Instruction, ...] = ()

    @property
    def state(self) -> Any:
        return self.machine.state

    @property
    def stop(self) -> do.StopWorkers:
        (found,) = (one for one in self.last if isinstance(one, do.StopWorkers))
        return found

    def sees(self, observation: see.Observation, now: float | None = None) -> list[str]:
        """The instructions that follow, in brief, without the Wait."""
        self.now = self.now if now is None else now
        self.last = self.machine.step(observation, self.now)
        assert isinstance(self.last[-1], do.Wait)
        assert not any(isinstance(instruction, do.Wait) for instruction in self.last[:-1])
        return [brief(instruction) for instruction in self.last[:-1]]

    @property
    def wait(self) -> do.Wait:
        assert isinstance(self.last[-1], do.Wait)
        return self.last[-1]

    @property
    def ticket(self) -> int:
        """Of the request under way."""
        assert self.state.pending is not None
        ticket: int = self.state.pending.ticket
        return ticket

    @property
    def wanted(self) -> Any:
        """The first record of the write under way."""
        return self.state.pending.records[0]

    def created(self, now: float | None = None) -> list[str]:
        return self.sees(see.Created(self.ticket), now)

    def renew(self, now: float) -> list[str]:
        return self.sees(see.LeaseRenewed(now), now)

    def end(self) -> Any:
        finish = next(one for one in self.last if isinstance(one, do.Finish))
        return finish.end

    def joined(self, before: tuple[str, ...] = (), log: RunHistory | None = None) -> list[str]:
        """From nothing to a member."""
        assert self.sees(see.Ticked()) == ["TakeLease"]
        assert self.sees(see.LeaseTaken(self.ticket, self.now)) == ["Join"]
        return self.sees(see.Joined(self.ticket, before, log or RunHistory()))


def leader(names: str = "ab", **others: Any) -> Node:
    """Node a, which leads a first round of ``names`` that runs."""
    node = Node("a", **({"least": len(names), "most": len(names)} | others))
    node.joined()
    node.sees(see.MembersSeen(tuple(member(name) for name in names)))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    if not isinstance(node.state.pending, do.Create):  # not full: the last call must pass
        node.renew(25.0)
        node.sees(see.Ticked(), 30.0)
    assert "StartWorkers" in node.created()
    return node


def follower(names: str = "ab", name: str = "b", **others: Any) -> Node:
    """Node b, in a first round of ``names`` that runs."""
    node = Node(name, **({"least": len(names), "most": len(names)} | others))
    node.joined(("a.1",))
    assert node.sees(see.LogSeen(RunHistory(round_of(names)))) == ["StartWorkers"]
    return node


# Joining and sealing


def test_the_first_node_leads_and_seals_once_all_are_there() -> None:
    node = Node()
    assert node.joined() == ["WatchMembers", "WatchReports 1.0"]
    assert node.sees(see.MembersSeen((member("a"),))) == ["OpenStore 1.1"]
    assert node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500)) == []
    assert node.wait.why == "1 of 2 nodes are here"
    assert node.sees(see.MembersSeen((member("a"), member("b")))) == ["Create assignment"]
    assert node.wanted == round_of("ab")
    assert node.created() == ["StartWorkers", "WatchReports 1.1", "RenewGeneration"]
    assert node.state.own_round.ranks_of("a.1").first_rank == 0


def test_a_later_node_watches_its_predecessor_and_waits_for_the_assignment() -> None:
    node = Node("c")
    assert node.joined(("a.1", "b.1")) == ["WatchPredecessor b.1"]
    assert node.wait.until == 900.0
    assert node.sees(see.LogSeen(RunHistory(round_of("abc")))) == ["StartWorkers"]
    assert node.wait.until == float("inf")


def test_from_join_to_seal_a_node_writes_twice_and_the_leader_once_more() -> None:
    for name, before, writes in (("a", (), 3), ("b", ("a.1",), 2)):
        node = Node(name)
        instructions = [*node.joined(before)]
        instructions += node.sees(see.MembersSeen((member("a"), member("b"))))
        instructions += node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
        instructions += node.sees(see.LogSeen(RunHistory(round_of("ab"))))
        creates = [one for one in instructions if one.startswith("Create")]
        assert 2 + len(creates) == writes  # its lease and its record come first
        assert not {"ReadLog", "ReadReports", "ReadBack", "Sweep"} & set(instructions)


def test_the_last_call_runs_on_the_leaders_own_clock_from_when_enough_are_there() -> None:
    node = Node(least=1, most=3)
    node.now = 1000.0
    node.joined()
    node.sees(see.MembersSeen((member("a"),)), 1007.0)
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500), 1008.0)
    assert node.wait.until == 1037.0
    node.renew(1036.0)
    assert node.sees(see.Ticked(), 1036.9) == []
    assert node.sees(see.Ticked(), 1037.0) == ["Create assignment"]


def test_the_last_call_begins_anew_when_a_node_leaves_too_few() -> None:
    node = Node(least=2, most=3)
    node.joined()
    two = (member("a"), member("b"))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    for now, here in ((1.0, two), (5.0, two[:1]), (8.0, two)):
        node.sees(see.MembersSeen(here), now)
    assert node.wait.until == 38.0


def test_nodes_that_do_not_fit_together_are_told() -> None:
    node = Node()
    node.joined()
    far = member("b", address="127.0.0.1")
    said = node.sees(see.MembersSeen((member("a"), far)))
    assert said == ["Leave", "Finish Refused"]
    assert "set local_addr" in node.end().why


# Success


def test_who_succeeded_reports_and_waits_for_the_verdict() -> None:
    node = follower()
    assert node.sees(see.WorkersEnded(FIRST, None)) == ["Create succeeded"]
    assert node.created() == []
    assert node.wait.why == "round 1 of generation 1 runs elsewhere; waiting for its verdict"
    over = RunHistory(round_of("ab"), verdict(Cause.SUCCEEDED, final=True), marker(Cause.SUCCEEDED))
    assert node.sees(see.LogSeen(over)) == ["Leave", "Finish FinishedWell"]
    assert node.end().assignment == round_of("ab")


def test_the_leader_writes_verdict_and_marker_at_once_and_cleans_up() -> None:
    node = leader(label="task-7", token="3")
    assert node.sees(see.WorkersEnded(FIRST, None)) == ["Create succeeded"]
    node.created()
    both = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    assert node.sees(see.ReportsSeen(FIRST, both)) == ["Create verdict + marker"]
    written = node.state.pending.records[1]
    assert isinstance(written, Marker)
    assert (written.cause, written.nodes) == (Cause.SUCCEEDED, ("a.1", "b.1"))
    assert node.created() == ["Sweep 2.0", "Leave", "Finish FinishedWell"]


def test_the_marker_keeps_tokens_and_labels_of_the_last_round() -> None:
    node = Node()
    node.joined()
    here = (member("a", token="1", label="t1"), member("b", token="2", label="t2"))
    node.sees(see.MembersSeen(here))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    node.created()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    node.sees(
        see.ReportsSeen(
            FIRST, (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
        )
    )
    written = node.state.pending.records[1]
    assert (written.tokens, written.labels) == (("1", "2"), ("t1", "t2"))


def test_who_succeeded_runs_again_if_the_others_must() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    failed = RunHistory(round_of("ab"), verdict(Cause.FAILED))
    assert node.sees(see.LogSeen(failed)) == ["Create back"]
    node.created()
    again = RunHistory(round_of("ab", (1, 2), restarts=1), verdict(Cause.FAILED))
    assert node.sees(see.LogSeen(again)) == ["StartWorkers"]


def test_a_node_that_is_lost_after_it_succeeded_still_ends_with_success() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    assert node.sees(see.LeaseLost("b.1")) == ["TakeLease"]
    over = RunHistory(round_of("ab"), verdict(Cause.SUCCEEDED, final=True), marker(Cause.SUCCEEDED))
    assert node.sees(see.LogSeen(over)) == ["Finish FinishedWell"]


# Failure and the budget


def test_a_failure_is_reported_with_its_class_and_ends_the_round() -> None:
    node = follower()
    told = JobFailure(why="boom", failure_class=FailureClass.OUT_OF_MEMORY)
    assert node.sees(see.WorkersEnded(FIRST, told)) == ["Create failed"]
    assert node.wanted == report("b", ReportKind.FAILED, job_failure=told)
    lead = leader()
    assert lead.sees(see.ReportsSeen(FIRST, (node.wanted,))) == ["Create verdict"]
    assert (lead.wanted.cause, lead.wanted.final) == (Cause.FAILED, False)
    assert lead.wanted.job_failure == told
    assert lead.created() == ["StopWorkers failed"]


def test_after_a_failure_all_come_back_and_the_next_seal_charges_it() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    node.created()
    assert node.sees(see.WorkersStopped(FIRST)) == ["CloseStore", "Create back"]
    assert node.created() == ["OpenStore 1.2"]
    node.sees(see.StoreOpened(Stage(1, 2), "10.0.0.1", 29501))
    backs = (report("a", ReportKind.BACK), report("b", ReportKind.BACK))
    assert node.sees(see.ReportsSeen(FIRST, backs)) == ["Create assignment"]
    assert node.wanted == round_of("ab", (1, 2), restarts=1, port=29501)
    assert node.created() == ["StartWorkers", "WatchReports 1.2", "Sweep 1.2"]


def last_failure(told: JobFailure = JobFailure(why="boom")) -> Node:  # noqa: B008 - frozen
    """A leader whose round failed without a restart left, and whose own workers have stopped."""
    node = leader(max_restarts=0, cause_wait=0.0)
    reports = (report("b", ReportKind.FAILED, job_failure=told),)
    assert node.sees(see.ReportsSeen(FIRST, reports), 5.0) == ["Create verdict"]
    assert (node.wanted.cause, node.wanted.final) == (Cause.FAILED, False)
    assert node.created() == ["StopWorkers failed"]
    assert node.sees(see.WorkersStopped(FIRST)) == ["CloseStore", "Create back"]
    assert node.created() == ["OpenStore 1.2"]
    assert node.sees(see.StoreOpened(Stage(1, 2), "10.0.0.1", 29501)) == []
    assert node.wait.until == 20.0
    return node


BACKS = (report("a", ReportKind.BACK), report("b", ReportKind.BACK))


def test_the_last_failure_is_told_at_once_and_ends_the_job_once_all_are_back() -> None:
    node = last_failure()
    failed = report("b", ReportKind.FAILED, job_failure=JobFailure(why="boom"))
    assert node.sees(see.ReportsSeen(FIRST, (failed, *BACKS)), 5.1) == ["Create marker"]
    assert node.wanted.why == "b.1 failed: boom; all 0 restarts are used up"
    final = node.state.pending.records
    assert node.created() == ["CloseStore", "Sweep 2.0", "Leave", "Finish Failed"]
    other = follower()
    over = [round_of("ab"), verdict(Cause.FAILED), *final]
    assert other.sees(see.LogSeen(RunHistory().with_records(over))) == ["StopWorkers failed"]
    assert other.sees(see.WorkersStopped(FIRST)) == ["Leave", "Finish Failed"]
    assert "boom" in other.end().why


def test_the_last_failure_ends_the_job_some_time_later_if_a_member_does_not_come_back() -> None:
    node = last_failure()
    node.renew(14.0)
    assert node.sees(see.Ticked(), 20.0) == ["Create marker"]


def test_the_last_failure_costs_nothing_if_a_member_was_lost() -> None:
    node = last_failure()
    assert node.sees(see.MembersSeen((member("a"), member("c"))), 6.0) == []
    said = (report("b", ReportKind.FAILED), report("a", ReportKind.BACK))
    assert node.sees(see.ReportsSeen(FIRST, said)) == ["Create assignment"]
    assert node.wanted.restarts == 0


def test_a_node_whose_workers_had_failed_when_they_were_stopped_says_so_before_it_is_back() -> None:
    node, told = follower(), job_failure("the cause")
    log = RunHistory().with_records([round_of("ab"), verdict(Cause.FAILED)])
    assert node.sees(see.LogSeen(log)) == ["StopWorkers failed"]
    assert node.sees(see.WorkersEnded(FIRST, told)) == ["Create failed"]
    assert node.wanted == report("b", ReportKind.FAILED, job_failure=told)
    assert node.created() == ["Create back"]
    assert node.sees(see.WorkersStopped(FIRST)) == []


def test_a_late_report_of_the_cause_overrules_the_echo_that_ended_the_round() -> None:
    told = job_failure("a peer is gone", echo=True)
    node, echo = last_failure(told), report("b", ReportKind.FAILED, job_failure=told)
    cause = report("a", ReportKind.FAILED, job_failure=job_failure("the cause", rank=0))
    assert node.sees(see.ReportsSeen(FIRST, (echo, cause, *BACKS)), 5.1) == ["Create marker"]
    assert node.wanted.job_failure == cause.job_failure
    assert "the cause" in node.wanted.why


def test_a_success_is_not_reported_after_the_verdict() -> None:
    node = follower()
    log = RunHistory().with_records([round_of("ab"), verdict(Cause.FAILED)])
    node.sees(see.LogSeen(log))
    assert node.sees(see.WorkersEnded(FIRST, None)) == []
    assert node.sees(see.WorkersStopped(FIRST)) == ["Create back"]


# Membership changes


def test_a_lost_member_ends_the_round_only_after_its_reports_were_read_anew() -> None:
    node = leader("abc")
    assert node.sees(see.MembersSeen((member("a"), member("b")))) == ["ReadReports"]
    said = (report("c", ReportKind.SUCCEEDED),)
    assert node.sees(see.ReportsRead(node.ticket, FIRST, said)) == []  # it had succeeded
    assert node.sees(see.MembersSeen((member("a"),))) == ["ReadReports"]
    assert node.sees(see.ReportsRead(node.ticket, FIRST, said)) == ["Create verdict"]
    assert (node.wanted.cause, node.wanted.nodes) == (Cause.LOST, ("b.1",))


def test_a_member_lost_before_the_seal_ends_the_round_at_once() -> None:
    node = Node()
    node.joined()
    node.sees(see.MembersSeen((member("a"), member("b"))))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    node.sees(see.MembersSeen((member("a"),)))  # while the seal is on its way
    assert node.created()[-1] == "ReadReports"
    assert node.sees(see.ReportsRead(node.ticket, FIRST, ())) == ["Create verdict"]
    assert node.wanted.cause is Cause.LOST


def test_a_newcomer_ends_the_round_and_gets_in() -> None:
    node = leader("a", least=1, most=2)
    assert node.sees(see.MembersSeen((member("a"), member("x")))) == ["ReadReports"]
    assert node.sees(see.ReportsRead(node.ticket, FIRST, ())) == ["Create verdict"]
    assert node.wanted.cause is Cause.GROWN
    assert node.created() == ["StopWorkers"]
    assert node.stop.cause is Cause.GROWN
    node.sees(see.WorkersStopped(FIRST))
    node.created()
    node.sees(see.StoreOpened(Stage(1, 2), "10.0.0.1", 29501))
    assert node.sees(see.ReportsSeen(FIRST, (report("a", ReportKind.BACK),))) == [
        "Create assignment"
    ]
    assert (node.wanted.nodes, node.wanted.restarts) == (("a.1", "x.1"), 0)


def test_a_node_that_waits_beside_a_round_needs_no_patience() -> None:
    node = Node("x", timeout=900.0)
    node.joined(("a.1",), RunHistory(round_of("ab")))
    for now in (500.0, 2000.0):
        node.renew(now)
        assert node.sees(see.Ticked(), now) == []
    node.sees(see.LogSeen(RunHistory(round_of("ab"), verdict(Cause.LOST))), 2000.0)
    assert node.wait.until == 2900.0


def test_a_slow_survivor_comes_back_as_a_newcomer() -> None:
    node = follower("ab", most=3)
    assert node.sees(see.LogSeen(RunHistory(round_of("ab"), verdict(Cause.FAILED)))) == [
        "StopWorkers failed"
    ]
    gone_on = round_of("a", (1, 2), away=("b.1",))
    node.sees(see.LogSeen(RunHistory(gone_on, verdict(Cause.FAILED))))
    assert node.sees(see.WorkersStopped(FIRST)) == ["Create back"]
    assert node.wanted.stage == Stage(1, 2)


# Taking over


def test_the_next_in_line_reads_the_log_before_it_does_anything_as_leader() -> None:
    node = Node("c")
    node.joined(("a.1", "b.1"))
    assert node.sees(see.PredecessorGone("b.1")) == ["WatchPredecessor a.1"]
    assert node.sees(see.PredecessorGone("a.1")) == ["ReadLog"]
    read = RunHistory(round_of("ab"), verdict(Cause.LOST))
    said = node.sees(see.LogRead(node.ticket, read))
    assert said == ["WatchMembers", "WatchReports 1.1", "RenewGeneration"]


def test_a_new_leader_ends_the_round_of_those_who_are_gone_and_goes_on_at_the_next() -> None:
    node = Node("x", least=1, most=1)
    node.joined(log=RunHistory(round_of("ab", restarts=3)))
    assert node.sees(see.MembersSeen((member("x"),))) == ["ReadReports"]
    assert node.sees(see.ReportsRead(node.ticket, FIRST, ())) == ["Create verdict"]
    assert node.created() == ["OpenStore 1.2"]
    assert node.sees(see.StoreOpened(Stage(1, 2), "10.0.0.1", 29501)) == ["Create assignment"]
    assert (node.wanted.stage, node.wanted.restarts) == (Stage(1, 2), 0)


def test_a_new_leader_finishes_what_all_have_succeeded_in() -> None:
    node = Node("x")
    node.joined(log=RunHistory(round_of("ab")))
    node.sees(see.MembersSeen((member("x"),)))
    both = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    assert node.sees(see.ReportsRead(node.ticket, FIRST, both)) == ["Create verdict + marker"]
    assert node.created() == ["Sweep 2.0", "Leave", "Finish Late"]


# Leases


def test_a_suspended_node_starts_and_writes_nothing_until_its_lease_is_renewed() -> None:
    node = follower()
    assert node.sees(see.WorkersEnded(FIRST, None), 10.0) == []
    assert "only the ledger can say" in node.wait.why
    assert node.renew(11.0) == ["Create succeeded"]


def test_a_suspended_node_starts_no_workers() -> None:
    node = Node("b")
    node.joined(("a.1",))
    assert node.sees(see.LogSeen(RunHistory(round_of("ab"))), 10.0) == []
    assert node.sees(see.LeaseRenewed(9.0), 12.0) == ["StartWorkers"]


def test_the_workers_of_a_suspended_node_run_on() -> None:
    node = follower()
    assert node.sees(see.Ticked(), 10_000.0) == []
    assert node.wait.until == float("inf")


def test_a_lost_node_ends_its_workers_and_comes_back_under_a_new_identity() -> None:
    node = follower()
    assert node.sees(see.LeaseLost("b.1")) == ["StopWorkers failed"]
    assert node.stop.cause is Cause.LOST
    assert node.sees(see.WorkersStopped(FIRST)) == ["TakeLease"]
    assert node.sees(see.LeaseTaken(node.ticket, 0.0)) == ["Join"]
    assert node.state.pending.member.node == "b.2"
    assert node.sees(see.Joined(node.ticket, ("a.1",), RunHistory(round_of("ab")))) == [
        "WatchPredecessor a.1"
    ]


def test_a_node_begins_the_run_anew_in_a_store_that_has_no_records_of_the_last_one() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.sees(see.LeaseLost("b.1"))
    assert node.sees(see.LeaseTaken(node.ticket, 0.0, new_store=True)) == ["Join"]
    assert node.sees(see.Joined(node.ticket, ("c.1",), RunHistory())) == ["WatchPredecessor c.1"]
    first = structs.replace(round_of("cb"), seats=(seat("c"), seat("b", node="b.2")))
    assert node.sees(see.LogSeen(RunHistory(first))) == ["StartWorkers"]
    assert node.sees(see.WorkersEnded(FIRST, None)) == ["Create succeeded"]


def test_the_loss_of_an_older_identity_is_old_news() -> None:
    node = Node("b")
    node.joined(("a.1",))
    node.sees(see.LeaseLost("b.1"))
    node.sees(see.LeaseTaken(node.ticket, 0.0))
    node.sees(see.Joined(node.ticket, ("a.1",), RunHistory()))
    assert node.sees(see.LeaseLost("b.1")) == []
    assert node.state.joined


def test_a_write_that_finds_the_own_record_gone_means_that_the_lease_is_lost() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    assert node.sees(see.OwnRecordGone(node.ticket)) == ["StopWorkers failed"]
    assert node.sees(see.WorkersStopped(FIRST)) == ["CloseStore", "TakeLease"]


# Ambiguous writes


def test_an_unanswered_write_is_read_back_before_it_is_repeated_as_it_was() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    first = node.wanted
    assert node.sees(see.Unanswered(node.ticket), 2.0) == []
    assert node.wait.until == 2.5
    assert node.sees(see.Ticked(), 2.5) == ["ReadBack"]
    assert node.sees(see.Unanswered(node.ticket), 4.0) == []
    assert node.sees(see.Ticked(), 4.5) == ["ReadBack"]
    assert node.sees(see.Found(node.ticket, None)) == ["Create verdict"]
    assert node.wanted == first


def test_a_write_that_is_found_was_done() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    written = node.wanted
    node.sees(see.Unanswered(node.ticket))
    node.sees(see.Ticked(), 0.5)
    assert node.sees(see.Found(node.ticket, written)) == ["StopWorkers failed"]


def test_a_final_verdict_that_is_found_brings_its_marker() -> None:
    node = leader("a")
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    node.sees(see.ReportsSeen(FIRST, (report("a", ReportKind.SUCCEEDED),)))
    written = node.wanted
    node.sees(see.Unanswered(node.ticket))
    node.sees(see.Ticked(), 0.5)
    said = node.sees(see.Found(node.ticket, written))
    assert said == ["Sweep 2.0", "Leave", "Finish FinishedWell"]


def test_nothing_else_is_written_before_a_doubt_is_settled() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    node.sees(see.Unanswered(node.ticket))
    assert node.sees(see.WorkersEnded(FIRST, JobFailure()), 0.1) == []
    assert node.sees(see.Ticked(), 0.5) == ["ReadBack"]


def test_what_another_attempt_wrote_is_taken_as_it_is() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    other = verdict(Cause.LOST)
    assert node.sees(see.Existed(node.ticket, other)) == ["StopWorkers failed"]
    assert node.state.log.verdict == other


def test_an_answer_to_a_request_that_was_given_up_changes_nothing() -> None:
    node = leader()
    node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED),)))
    stale = node.ticket
    node.sees(see.Unanswered(stale))
    assert node.sees(see.Created(stale), 0.1) == []
    assert node.state.log.verdict is None


@pytest.mark.parametrize("asks", ["TakeLease", "Join", "ReadLog"])
def test_a_request_that_changes_nothing_in_doubt_is_just_made_again(asks: str) -> None:
    node = Node("b")
    said = node.sees(see.Ticked())
    if asks != "TakeLease":
        said = node.sees(see.LeaseTaken(node.ticket, 0.0))
    if asks == "ReadLog":
        node.sees(see.Joined(node.ticket, ("a.1",), RunHistory()))
        said = node.sees(see.PredecessorGone("a.1"))
    assert said == [asks]
    node.sees(see.Unanswered(node.ticket), 2.0)
    assert node.sees(see.Ticked(), 2.5) == [asks]


# Generations and tokens


OVER = RunHistory(marker=marker(Cause.SUCCEEDED, tokens=("3",)))
LATE = {
    # what a new node meets, its token, and whether it is late
    "a success under its token": (OVER, "3", True),
    "a success under another token": (OVER, "4", False),
    "a success, and it has no token": (RunHistory(marker=marker(Cause.SUCCEEDED, tokens=("",))), "", False),
    "a failure under its token": (RunHistory(marker=marker(Cause.FAILED, tokens=("3",))), "3", False),
    "a stop under its token": (RunHistory(marker=marker(Cause.STOPPED, tokens=("3",))), "3", False),
    "nobody": (RunHistory(), "3", False),
    "a rerun that is open, under another token": (
        replace(OVER, assignment=round_of("ab", (2, 1))),
        "3",
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log", "token", "late"), LATE.values(), ids=LATE.keys())
def test_a_new_node_is_late_only_after_a_success_under_its_own_token(
    log: RunHistory, token: str, late: bool
) -> None:
    node = Node("x", token=token)
    said = node.joined(("z.1",), log)
    assert (said == ["Leave", "Finish Late"]) is late
    if late:
        assert "its result is empty" in node.end().why


@pytest.mark.parametrize(
    ("labels", "took_part"),
    [
        (("node 0", "node 1"), True),
        (("node 0",), False),
        (("node 1", "node 1"), False),
        ((), False),
    ],
)
def test_a_late_node_knows_whether_an_earlier_launch_of_it_had_ranks(
    labels: tuple[str, ...], took_part: bool
) -> None:
    over = RunHistory(marker=marker(Cause.SUCCEEDED, tokens=("3",), labels=labels))
    node = Node("x", token="3", label="node 1")
    node.joined(("z.1",), over)
    assert node.end() == do.Late(node.end().why, took_part=took_part)


def test_a_node_that_waits_while_the_job_succeeds_knows_it_too() -> None:
    node = Node("x", label="node 1")
    seats = (seat("a"), seat("b", label="node 1"))
    node.joined(log=RunHistory(round_of("ab", seats=seats)))
    node.sees(see.MembersSeen((member("x"),)))
    both = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    node.sees(see.ReportsRead(node.ticket, FIRST, both))
    node.created()
    assert node.end().took_part


def test_a_rerun_opens_the_next_generation() -> None:
    node = Node("x", least=1, most=1, token="4")
    node.joined(log=OVER)
    assert node.sees(see.MembersSeen((member("x"),))) == ["OpenStore 2.1"]
    said = node.sees(see.StoreOpened(Stage(2, 1), "10.0.0.1", 29500))
    assert said == ["Create assignment"]
    assert node.wanted.stage == Stage(2, 1)


WAITED = {
    "success ends whoever waits": (Cause.SUCCEEDED, "0", "1", "Finish Late"),
    "failure ends whoever waits under its token": (Cause.FAILED, "0", "0", "Finish Failed"),
    "a stop ends whoever waits under its token": (Cause.STOPPED, "0", "0", "Finish Stopped"),
    "failure does not end who waits for another life": (Cause.FAILED, "0", "1", None),
    "a stop does not end who waits for another life": (Cause.STOPPED, "0", "1", None),
    "that all others left ends nobody": (Cause.LEFT, "0", "0", None),
}


@pytest.mark.parametrize(("cause", "theirs", "own", "ends"), WAITED.values(), ids=WAITED.keys())
def test_who_waits_when_a_generation_ends(
    cause: Cause, theirs: str, own: str, ends: str | None
) -> None:
    node = Node("x", token=own)
    node.joined(("a.1",), RunHistory(round_of("ab")))
    log = RunHistory(round_of("ab"), marker=marker(cause, tokens=(theirs,), nodes=("a.1", "b.1")))
    said = node.sees(see.LogSeen(log))
    assert said == (["Leave", ends] if ends else [])


# Stopping, leaving, giving up


def test_a_stop_is_reported_and_ends_the_job() -> None:
    node = follower(token="5")
    assert node.sees(see.EndRequested("marked failed", stop=True)) == ["StopWorkers", "Create stop"]
    assert node.stop.cause is Cause.STOPPED
    lead = leader()
    assert lead.sees(see.ReportsSeen(FIRST, (node.wanted,))) == ["Create verdict + marker"]
    final = lead.state.pending.records
    assert final[1].tokens == ("", "5")
    node.created()
    node.sees(see.WorkersStopped(FIRST))
    log = RunHistory().with_records([round_of("ab"), *final])
    assert node.sees(see.LogSeen(log)) == ["Leave", "Finish Stopped"]


def test_a_stop_does_not_wait_for_the_leader_for_longer_than_a_lease() -> None:
    node = follower()
    node.sees(see.EndRequested("enough", stop=True))
    node.created()
    node.sees(see.WorkersStopped(FIRST), 4.0)
    assert node.wait.until == 14.0
    node.renew(13.0)
    assert node.sees(see.Ticked(), 14.0) == ["Leave", "Finish Stopped"]


def test_a_node_that_never_met_anybody_stops_at_once() -> None:
    node = Node()
    assert node.sees(see.EndRequested("enough", stop=True)) == ["Finish Stopped"]


def test_a_node_that_waits_beside_a_job_of_another_token_stops_alone() -> None:
    node = Node("x", token="1")
    node.joined(("a.1",), RunHistory(round_of("ab")))
    node.sees(see.EndRequested("enough", stop=True))
    assert brief(node.last[-2]) == "Finish Stopped"


def test_a_node_that_leaves_just_goes_once_its_workers_have() -> None:
    node = follower()
    assert node.sees(see.EndRequested("preempted", stop=False)) == ["StopWorkers"]
    assert node.stop.cause is None
    assert node.sees(see.WorkersStopped(FIRST)) == ["Leave", "Finish Left"]


def test_the_last_one_to_leave_marks_the_generation() -> None:
    node = leader("a")
    said = node.sees(see.EndRequested("shutdown", stop=False))
    assert said == ["StopWorkers", "Create verdict + marker"]
    assert {record.cause for record in node.state.pending.records} == {Cause.LEFT}
    assert node.created() == []
    said = node.sees(see.WorkersStopped(FIRST))
    assert said == ["CloseStore", "Sweep 2.0", "Leave", "Finish Left"]


def test_a_leader_may_linger_for_the_others_to_leave_first() -> None:
    node = leader("ab")
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    assert node.sees(see.EndRequested("shutdown", stop=False, linger=3.0)) == []
    assert node.wait.until == 3.0
    assert node.sees(see.MembersSeen((member("a"),)), 1.0) == ["ReadReports"]
    told = (report("b", ReportKind.SUCCEEDED),)
    said = node.sees(see.ReportsRead(node.ticket, FIRST, told))
    assert said == ["Create verdict + marker"]
    assert node.wanted.cause is Cause.SUCCEEDED


def test_a_leader_does_not_linger_for_ever() -> None:
    node = leader("ab")
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    node.sees(see.EndRequested("shutdown", stop=False, linger=3.0))
    assert node.sees(see.Ticked(), 3.0)[-2:] == ["Leave", "Finish Left"]


FOR_EVER = see.EndRequested("its workers have succeeded", stop=False, linger=float("inf"))
FATAL = job_failure("no luck", fatal=True)


def test_who_leaves_has_its_say_first_if_it_lingers() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    assert node.sees(FOR_EVER) == []
    assert node.created() == ["Leave", "Finish Left"]


def test_who_lingers_waits_out_a_store_that_is_away_until_its_timeout() -> None:
    node = follower(timeout=60.0)
    node.sees(see.WorkersEnded(FIRST, None))
    node.sees(FOR_EVER)
    node.sees(see.Unanswered(node.ticket), 5.0)
    assert node.sees(see.Ticked(), 59.0) == []
    assert node.wait.until == 60.0
    assert node.sees(see.Ticked(), 60.0) == ["Leave", "Finish Left"]


def test_a_failure_that_ends_the_job_is_not_left_behind_before_the_leader_says_so() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, FATAL))
    node.sees(see.EndRequested("it failed", stop=False, linger=8.0))
    assert node.created(1.0) == []
    final = verdict(Cause.FAILED, final=True)
    end = marker(Cause.FAILED, job_failure=FATAL, tokens=("",))
    log = RunHistory(round_of("ab"), final, end)
    assert node.sees(see.LogSeen(log)) == ["Leave", "Finish Failed"]


def test_a_leader_that_succeeded_serves_its_round_for_as_long_as_that_runs() -> None:
    node = leader("ab", runs_again=False)
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    assert node.sees(FOR_EVER) == []
    for now in range(9, 5000, 9):
        node.renew(float(now))
    assert node.wait.why == "1 of 2 nodes have succeeded"
    told = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    assert node.sees(see.ReportsSeen(FIRST, told)) == ["Create verdict + marker"]
    assert node.created()[-1] == "Finish FinishedWell"


def test_a_leader_that_succeeded_does_not_serve_without_the_ledger_for_ever() -> None:
    node = leader("ab", timeout=60.0)
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    node.sees(FOR_EVER)
    assert node.wait.until == 10.0
    assert node.sees(see.Ticked(), 69.0) == []
    assert node.sees(see.LeaseRenewed(70.0), 70.0) == []
    assert node.sees(see.Ticked(), 80.0) == []
    assert node.sees(see.Ticked(), 139.0) == []
    assert node.sees(see.Ticked(), 140.0)[-2:] == ["Leave", "Finish Left"]


def test_a_new_leader_that_succeeded_does_not_serve_beside_a_full_ledger_for_ever() -> None:
    node = follower("ab", timeout=60.0)
    node.sees(see.WorkersEnded(FIRST, None))
    node.sees(FOR_EVER)
    node.sees(see.PredecessorGone("a.1"))
    for n in itertools.count():
        if node.state.finished:
            break
        assert n < 100
        node.renew(node.now + 1.0)
        match node.state.pending:
            case do.Create():
                node.sees(see.Unanswered(node.ticket))
            case do.ReadBack():
                node.sees(see.Found(node.ticket, None))
            case _:
                node.sees(see.Ticked())
    assert isinstance(node.state.decided_end, do.Left)
    assert 60.0 <= node.now < 63.0


def test_a_leader_that_succeeded_goes_once_the_others_have_to_start_again() -> None:
    node = leader("abc", least=2, runs_again=False)
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    node.sees(FOR_EVER)
    told = (report("b", ReportKind.FAILED, job_failure=job_failure()),)
    assert node.sees(see.ReportsSeen(FIRST, told)) == ["Create verdict"]
    assert node.created()[-2:] == ["Leave", "Finish Left"]


def test_a_fatal_failure_told_after_the_verdict_ends_the_job() -> None:
    node = leader("ab", least=1)
    node.sees(see.WorkersEnded(FIRST, job_failure("its agent restarts")))
    node.created()
    node.sees(see.ReportsSeen(FIRST, (report("a", ReportKind.FAILED, job_failure=job_failure()),)))
    assert node.wanted.cause is Cause.FAILED
    assert node.created()[-1] == "Create back"
    node.created()
    said = node.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.FAILED, job_failure=FATAL),)))
    assert said == ["Create marker"]
    assert node.wanted.job_failure == FATAL


def test_a_job_whose_members_all_succeeded_after_all_has_succeeded() -> None:
    node = Node("c", least=1, most=3, runs_again=False)
    grown = verdict(Cause.GROWN, nodes=("c.1",))
    node.joined((), RunHistory(round_of("ab"), grown))
    node.sees(see.MembersSeen((member("c"),)))
    told = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    said = node.sees(see.ReportsSeen(FIRST, told))
    assert said[-1] == "Create marker"
    assert node.wanted.cause is Cause.SUCCEEDED
    assert node.created()[-1] == "Finish Late"


@pytest.mark.parametrize("runs_again", [True, False])
def test_a_success_that_comes_while_workers_are_stopped_counts_if_nobody_runs_again(
    runs_again: bool,
) -> None:
    node = follower(runs_again=runs_again)
    log = RunHistory(round_of("ab"), verdict(Cause.GROWN, nodes=("c.1",)))
    assert node.sees(see.LogSeen(log)) == ["StopWorkers"]
    said = node.sees(see.WorkersEnded(FIRST, None))
    assert said == ([] if runs_again else ["Create succeeded"])


def test_a_stop_outranks_a_wish_to_leave() -> None:
    node = leader()
    node.sees(see.EndRequested("preempted", stop=False))
    assert node.sees(see.EndRequested("enough", stop=True)) == ["Create verdict + marker"]


def test_a_node_gives_up_when_no_round_begins_in_time_and_says_who_is_there() -> None:
    node = Node(least=3, most=3, timeout=60.0)
    node.joined()
    node.sees(see.MembersSeen((member("a"), member("b"))))
    node.renew(59.0)
    said = node.sees(see.Ticked(), 60.0)
    assert said == ["CloseStore", "Leave", "Finish GaveUp"]
    assert not node.end().ledger_away
    assert node.end().why == (
        "no round after round 0 of generation 1 began within 60 s; 2 of 3 nodes are ready; here: "
        "a, b"
    )


@pytest.mark.parametrize(
    ("timeout", "first_answer", "limit"), [(30.0, 60.0, 30), (900.0, 20.0, 20)]
)
def test_a_node_whose_ledger_has_never_answered_gives_up_early(
    timeout: float, first_answer: float, limit: int
) -> None:
    node = Node(timeout=timeout, first_answer=first_answer)
    node.sees(see.Ticked())
    for n in itertools.count():
        node.sees(see.Unanswered(node.ticket), node.now + 2.0)
        node.sees(see.Ticked(), node.now + 0.5)
        if node.state.finished:
            break
        assert n < 60
    assert node.end().ledger_away
    assert node.end().why == f"the ledger did not answer for {limit} s, and never has; is it there?"
    assert limit <= node.now < limit + 3.0


def test_a_node_without_a_ledger_gives_up_in_time() -> None:
    node = Node(timeout=60.0, first_answer=20.0)
    node.sees(see.Ticked())
    node.sees(see.LeaseTaken(node.ticket, 0.0))
    for n in itertools.count():
        if node.state.pending is not None:
            node.sees(see.Unanswered(node.ticket), node.now + 2.0)
        node.sees(see.Ticked(), node.now + 0.5)
        if node.state.finished:
            break
        assert n < 200
    assert node.end().ledger_away
    assert node.end().why == "the ledger did not answer for 60 s"
    assert 60.0 <= node.now < 63.0


def test_after_its_end_a_machine_does_nothing_any_more() -> None:
    node = Node()
    node.sees(see.EndRequested("enough", stop=True))
    assert node.sees(see.LogSeen(RunHistory(round_of("ab")))) == []
    assert node.wait.why == "finished"


def test_a_store_that_cannot_take_snapshots_may_show_a_final_verdict_first() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    final = verdict(Cause.SUCCEEDED, final=True)
    assert node.sees(see.LogSeen(RunHistory(round_of("ab"), final))) == []
    log = RunHistory(round_of("ab"), final, marker(Cause.SUCCEEDED))
    assert node.sees(see.LogSeen(log)) == ["Leave", "Finish FinishedWell"]


def test_an_assignment_is_acted_upon_once() -> None:
    node = follower()
    assert node.sees(see.LogSeen(RunHistory(round_of("ab")))) == []
    assert isinstance(node.state.own_round, Assignment)


# A ledger that has gone for good

GONE = see.LedgerGone("the server of the ledger is not there any more")
STOP = see.EndRequested("enough", stop=True)


def gave_up_since_it_is_gone(node: Node, outcome: Report | None = None) -> bool:
    why = f"the ledger has gone for good: {GONE.why}"
    return bool(node.end() == do.GaveUp(why, outcome, ledger_away=True, gone=True))


def test_a_node_without_workers_waits_no_longer_once_the_ledger_is_gone() -> None:
    node = Node()
    node.sees(see.Ticked())
    assert node.sees(GONE) == ["Finish GaveUp"], "it has no lease yet"
    assert gave_up_since_it_is_gone(node)
    node = Node("b")
    node.joined(("a.1",))
    assert node.sees(GONE) == ["Finish GaveUp"], "it waits for its first round"
    node = Node()
    node.joined()
    node.sees(see.MembersSeen((member("a"),)))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    node.sees(see.MembersSeen((member("a"), member("b"))))
    assert node.sees(GONE) == ["CloseStore", "Finish GaveUp"], "it seals that round"
    node = Node("b")
    node.joined(("a.1",), RunHistory(round_of("ac")))
    assert node.sees(GONE, 5.0) == ["Finish GaveUp"], "it waits beside a round"


def test_workers_run_on_after_the_ledger_is_gone_and_their_end_is_told_at_once() -> None:
    node = follower()
    assert node.sees(GONE) == []
    assert node.wait.until == float("inf")
    assert node.sees(see.PredecessorGone("a.1")) == []
    assert node.sees(see.Ticked(), 10_000.0) == []
    assert node.sees(see.WorkersEnded(FIRST, job_failure())) == ["Finish GaveUp"]
    failed = report("b", ReportKind.FAILED, job_failure=job_failure())
    assert gave_up_since_it_is_gone(node, failed)


def test_a_leader_whose_ledger_is_gone_asks_nothing_of_it_any_more() -> None:
    node = leader()
    node.sees(GONE)
    assert node.sees(see.MembersSeen((member("a"),))) == []
    told = (report("b", ReportKind.FAILED, job_failure=job_failure()),)
    assert node.sees(see.ReportsSeen(FIRST, told)) == []
    assert node.wait.until == float("inf")


def test_how_workers_ended_before_the_ledger_was_gone_is_told() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    assert node.sees(GONE) == ["Finish GaveUp"]
    assert gave_up_since_it_is_gone(node, report("b", ReportKind.SUCCEEDED))


def test_a_leader_that_has_seen_every_success_needs_no_ledger_to_end_well() -> None:
    node = leader()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    told = (report("a", ReportKind.SUCCEEDED), report("b", ReportKind.SUCCEEDED))
    assert node.sees(see.ReportsSeen(FIRST, told)) == ["Create verdict + marker"]
    assert node.sees(GONE) == ["Finish FinishedWell"]
    assert not node.end().recorded


def test_a_node_that_stops_its_workers_when_the_ledger_goes_ends_with_them() -> None:
    node = follower()
    log = RunHistory(round_of("ab"), verdict(Cause.LOST))
    assert node.sees(see.LogSeen(log)) == ["StopWorkers failed"]
    assert node.sees(GONE) == []
    assert node.sees(see.WorkersStopped(FIRST)) == ["Finish GaveUp"]


def test_a_node_starts_no_workers_that_it_hears_of_after_its_ledger_is_gone() -> None:
    node = Node("b")
    node.joined(("a.1",))
    assert node.sees(GONE) == ["Finish GaveUp"]
    assert node.sees(see.LogSeen(RunHistory(round_of("ab")))) == []


@pytest.mark.parametrize(("asked", "end"), [(STOP, "Finish Stopped"), (FOR_EVER, "Finish Left")])
def test_who_was_asked_to_end_does_so_at_once_when_the_ledger_is_gone(
    asked: see.EndRequested, end: str
) -> None:
    lead, node = leader(), follower()
    for one in (lead, node):
        one.sees(see.WorkersEnded(FIRST, None))
        one.sees(asked)
        assert one.state.decided_end is None
        one.sees(GONE)
        assert brief(one.last[-2]) == end
    node = follower()
    node.sees(GONE)
    assert node.sees(asked) == ["StopWorkers"]
    assert node.sees(see.WorkersStopped(FIRST)) == [end]


def test_an_end_that_is_in_the_log_counts_though_the_ledger_is_gone() -> None:
    node = follower()
    node.sees(see.WorkersEnded(FIRST, None))
    node.created()
    log = RunHistory(round_of("ab"), verdict(Cause.SUCCEEDED, final=True), marker(Cause.SUCCEEDED))
    assert node.sees(see.LogSeen(log)) == ["Leave", "Finish FinishedWell"]
    assert node.sees(GONE) == []
    node = follower()
    node.sees(see.LogSeen(RunHistory(round_of("ab"), verdict(Cause.FAILED, final=True))))
    node.sees(GONE)
    node.sees(see.LogSeen(RunHistory(marker=marker(Cause.FAILED, tokens=("",)))))
    assert node.sees(see.WorkersStopped(FIRST)) == ["Finish Failed"]
