"""How a node's part ends if the ledger does not take its word, and the time limit for that is over.

The ledger may be away, or may answer reads and renewals only (an etcd that is full does that). Then
no verdict can be written, and a node has to end by what it knows itself:

* Its own workers failed. That is what the node tells. No verdict could make it untrue.
* All ranks of the round were its own, and all succeeded. So the job has succeeded: the verdict of a
  round says what its members did, and no other node was a member. While this node's lease is
  certain, nobody else can have ended the round, since only the leader does, and a round with one
  member has that member as its leader. If the lease may be over, another node may have begun the
  job again. So then this holds only for a job of one node.
* It leads, and the ledger holds a report of success of every member. Reports never change, and a
  leader that sees them all can write no other verdict than success. That holds for its successors
  too.
* Its own ranks succeeded, and others were members too. Then it knows nothing of the job: another
  node may have failed, and the job may start all of them again. It must not end as a success. What
  its ranks returned is kept by its agent.

In none of these does this node have something in doubt that would say the opposite: a leader that
has sent another verdict, and heard no answer, does not know whether it counts.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from dataclasses import replace

from llutil.rendezvous.protocol.instructions import Create, End, FinishedWell, GaveUp
from llutil.rendezvous.protocol.records import Assignment, Cause, Report, ReportKind, Verdict
from llutil.rendezvous.protocol.state import State

__all__ = ["end_without_ledger"]


def end_without_ledger(state: State, gave_up: GaveUp, now: float) -> End:
    """The end of a node that gives up because the ledger does not take its word at ``now``."""
    outcome, own_round = state.outcome, state.own_round
    if outcome is None or own_round is None or outcome.say is not ReportKind.SUCCEEDED:
        return replace(gave_up, outcome=outcome)
    if _job_succeeded(state, own_round, now):
        why = f"all ranks of {own_round.stage} succeeded, and that could not be recorded"
        return FinishedWell(own_round, f"{why}: {gave_up.why}", recorded=False)
    return replace(gave_up, outcome=outcome)


def _job_succeeded(state: State, own_round: Assignment, now: float) -> bool:
    if state.log.is_over(own_round.stage) or _may_have_said_otherwise(state):
        return False
    if own_round.nodes == (state.node,):
        return not state.suspended(now) or state.parameters.max_nodes == 1
    return state.log_read_as_leader and state.reports.all_succeeded


def _may_have_said_otherwise(state: State) -> bool:
    """Whether a record that this node wrote, and that the ledger may apply yet, is something else
    than its own report or a verdict of success.
    """
    for write in (state.unanswered_write, state.pending):
        match write:
            case None | Create(records=(Report() | Verdict(cause=Cause.SUCCEEDED), *_)):
                pass
            case Create():
                return True
            case _:
                pass
    return False
