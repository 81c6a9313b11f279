"""What a node of a gang concludes from its siblings' states and notes, before it waits for any of
them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider.gang.siblings import (
    GangDone,
    GangHopeless,
    GangLost,
    GangOpen,
    GangView,
    absent_nodes,
    describe_absent,
    outlook,
    waits_in_vain,
)
from airflow_provider.gang.success_note import SuccessNote
from airflow_provider.results.result_readers import MissingRankError, merge_results

NOW = "1@2026-11-22"
BEFORE = "0@2026-11-22"


def note(node, ranks=(0,), rerun_token=NOW, world=2, nodes=2):
    return SuccessNote(
        node=node, nodes=nodes, rerun_token=rerun_token, ranks=tuple(ranks), world_size=world
    )


def view(states, notes=(), *, node=0, nodes=2, least=2, rerun_token=NOW, server=None):
    """``states`` are those of all nodes, the own one included."""
    return GangView(
        node=node,
        nodes=nodes,
        min_nodes=least,
        rerun_token=rerun_token,
        states=dict(enumerate(states)),
        notes={one.node: one for one in notes},
        server=server,
    )


def look(states, notes=(), **fields):
    return outlook(view(states, notes, **fields))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (look(["running", "running"]), GangOpen),
        (look(["running", None]), GangOpen),
        (look(["running", "scheduled"]), GangOpen),
        (look(["running", "queued"]), GangOpen),
        (look(["running", "up_for_retry"]), GangOpen),
        (look(["running", "restarting"]), GangOpen),
        (look(["running", "failed"]), GangHopeless),
        (look(["running", "upstream_failed"]), GangHopeless),
        (look(["running", "skipped"]), GangHopeless),
        (look(["running", "removed"]), GangHopeless),
        (look(["running", "failed"], least=1), GangOpen),
        (look(["running", "failed", "queued", None], nodes=4), GangOpen),
        (look(["running", "failed", "failed", None], nodes=4), GangOpen),
        (look(["running", "failed", "failed", "success"], nodes=4), GangHopeless),
        # A sibling that has succeeded in the same launch had the job without this node.
        (look(["running", "success"], [note(1, ranks=(0, 1))]), GangDone),
        (look(["running", "success"], [note(1, ranks=(0, 1))], least=1), GangDone),
        (look(["running", "success", "failed"], [note(1, ranks=(0, 1))], nodes=3), GangDone),
        # Where ranks are missing in what all siblings have had, an earlier try of it had them.
        (look(["running", "success"], [note(1)]), GangLost),
        (look(["running", "success"], [note(1)], least=1), GangLost),
        (
            look(
                ["running", "success", "success"],
                [note(1), note(2, ranks=(), world=0)],
                nodes=3,
            ),
            GangLost,
        ),
        # If one has yet to tell, a ledger knows, or that one will.
        (look(["running", "success", "running"], [note(1)], nodes=3), GangOpen),
        (look(["running", "success", "up_for_retry"], [note(1)], nodes=3, server=1), GangOpen),
        (look(["running", "success", "failed"], [note(1)], nodes=3), GangOpen),
        # Nobody will ever know.
        (look(["running", "success", "failed"], [note(1)], nodes=3, server=1), GangDone),
        # One of an earlier launch is over, and has nothing to say of this one.
        (look(["running", "success"], [note(1, rerun_token=BEFORE)]), GangHopeless),
        (look(["running", "success"], [note(1, rerun_token=BEFORE)], least=1), GangOpen),
        (look(["running", "success"]), GangHopeless),
        # Nor has one that was not needed itself, or that has been cleared and runs again.
        (look(["running", "success"], [note(1, ranks=(), world=0)]), GangHopeless),
        (look(["running", "running"], [note(1)]), GangOpen),
        # The own note is of an earlier try.
        (look(["success", "running"], [note(0)]), GangOpen),
    ],
)
def test_a_node_waits_only_if_enough_of_them_can_come(found, kind):
    assert type(found) is kind


@pytest.mark.parametrize(
    ("states", "server", "skipped"),
    [
        (["running", "skipped", "skipped"], None, True),
        (["running", "skipped", "failed"], None, False),
        (["running", "upstream_failed", "failed"], None, False),
        (["running", "skipped", "success"], None, True),
        (["running", "skipped", "queued"], 1, True),
        (["running", "failed", "queued"], 1, False),
    ],
)
def test_a_gang_that_was_skipped_skips_who_is_late(states, server, skipped):
    found = outlook(replace(view(states, nodes=3), server=server))
    assert isinstance(found, GangHopeless)
    assert found.skipped is skipped


def test_who_waits_in_vain_is_told_why_and_what_to_clear():
    found = look(["running", "failed", "success", None], nodes=4, least=3)
    assert isinstance(found, GangHopeless)
    assert "needs 3 of 4 nodes, and only 2 can still come" in found.why
    assert "node 1 is failed, node 2 is success" in found.why
    assert "Clear the whole task, all its mapped instances" in found.why


def test_who_is_late_is_told_who_did_the_job():
    found = look(["success", "success", "running"], [note(0), note(1)], node=2, nodes=3)
    assert found == GangDone("the job succeeded without this node, on node 0, node 1")


def test_whose_values_are_lost_is_told_how_many_and_what_to_clear():
    found = look(["success", "running"], [note(0, world=3)], node=1)
    assert isinstance(found, GangLost)
    assert "on node 0 and on this node, 1: an earlier try had 2 of its ranks" in found.why
    assert "clear the whole task" in found.why


def wait(states, notes=(), *, least=2):
    return waits_in_vain(view(states, notes, nodes=len(states), least=least))


@pytest.mark.parametrize("over", ["failed", "upstream_failed", "skipped", "removed", "success"])
def test_a_node_that_waits_is_told_when_too_few_others_can_come(over):
    found = wait(["running", over])
    assert isinstance(found, GangHopeless)
    assert f"only 1 can still come (node 1 is {over})" in found.why
    assert wait(["running", over], least=1) is None
    assert wait(["running", over, "running"]) is None


@pytest.mark.parametrize("state", [None, "queued", "running", "restarting", "up_for_retry"])
def test_a_node_that_waits_waits_on_for_one_that_can_come(state):
    assert wait(["running", state]) is None


@pytest.mark.parametrize(
    ("one", "is_mate"),
    [
        (note(1), True),
        (
            note(1, rerun_token="3@2026-11-22"),
            True,
        ),  # was cleared while the others ran, and came back
        (
            note(1, rerun_token="1@2026-11-21"),
            False,
        ),  # of a run that was over before this one began
        (note(1, ranks=(), world=0), False),
    ],
)
def test_a_sibling_that_has_just_succeeded_with_this_node_is_no_reason_to_give_up(one, is_mate):
    assert (wait(["running", "success"], [one]) is None) == is_mate


def together(notes, values=None, nodes=2, states=None):
    values = values or {
        one.node: {str(rank): f"n{one.node}r{rank}" for rank in one.ranks} for one in notes
    }
    return merge_results(
        "train",
        {one.node: one for one in notes},
        values,
        states or dict.fromkeys(range(nodes), "success"),
    )


def test_all_ranks_of_all_nodes_are_in_one_dict_in_rank_order():
    found = together([note(0, (2, 3), world=4), note(1, (0, 1), world=4)])
    assert found == {0: "n1r0", 1: "n1r1", 2: "n0r2", 3: "n0r3"}
    assert list(found) == [0, 1, 2, 3]


def test_a_node_that_was_not_needed_is_not_missed():
    notes = [note(0, (0, 1)), note(1, (), world=0)]
    assert together(notes) == {0: "n0r0", 1: "n0r1"}


def test_a_rank_that_is_missing_is_named_with_its_node():
    states = {0: "success", 1: "failed", 2: None}
    with pytest.raises(MissingRankError) as caught:
        together([note(0, (0,), world=3)], states=states)
    assert "ranks 1, 2 of 3 of 'train' left no value" in str(caught.value)
    assert "it was on node 1 (failed) or node 2 (not started)" in str(caught.value)


def test_a_node_that_pushed_no_results_is_named():
    with pytest.raises(MissingRankError, match="rank 1 of 'train' left no value: node 1 has"):
        together([note(0, (0,)), note(1, (1,))], {0: {"0": "a"}, 1: None})


def test_a_part_that_ran_again_counts_instead_of_what_it_replaced():
    # Node 1 was cleared later and made a job of its own, of one rank.
    notes = [note(0, (0,), rerun_token=BEFORE, world=2), note(1, (0,), rerun_token=NOW, world=1)]
    assert together(notes) == {0: "n1r0"}


def test_of_two_jobs_of_one_size_the_later_one_counts():
    notes = [
        note(0, (0,), rerun_token=BEFORE, nodes=3),
        note(1, (0,), rerun_token=NOW, nodes=3),
        note(2, (1,), rerun_token=NOW, nodes=3),
    ]
    assert together(notes, nodes=3) == {0: "n1r0", 1: "n2r1"}


def test_a_part_that_joined_the_running_job_again_is_of_the_same_job():
    notes = [note(0, (0,), rerun_token=BEFORE, world=2), note(1, (1,), rerun_token=NOW, world=2)]
    assert together(notes) == {0: "n0r0", 1: "n1r1"}


def test_nothing_at_all_is_an_error_too():
    with pytest.raises(MissingRankError, match="no node of 'train'"):
        together([])


class TestTheNodeThatServesTheLedger:
    def seen(self, states, notes=(), server=0):
        return view(states, [note(number) for number in notes], node=1, nodes=3, server=server)

    @pytest.mark.parametrize(
        ("states", "notes", "kind"),
        [
            (["running", "running", None], [], GangOpen),
            (["up_for_retry", "running", "running"], [], GangOpen),
            (["failed", "running", "running"], [], GangHopeless),
            (["upstream_failed", "running", "running"], [], GangHopeless),
            # It was an earlier launch's, or is not needed for this node any more.
            (["success", "running", "running"], [], GangHopeless),
            (["success", "running", "success"], [0, 2], GangDone),
        ],
    )
    def test_nobody_can_join_without_it(self, states, notes, kind):
        found = outlook(self.seen(states, notes))
        assert type(found) is kind
        if kind is GangHopeless:
            assert "node 0, which serves the job's ledger, is" in found.why
            assert "Clear the whole task" in found.why

    def test_it_is_missed_also_if_the_others_are_enough(self):
        states = ["queued", "running", "running"]
        assert absent_nodes(self.seen(states, server=None)) is None
        absent = absent_nodes(self.seen(states))
        assert absent == {0: "queued"}
        assert describe_absent(self.seen(states), absent, "gpu") == (
            "2 nodes are there, but not the one that serves the job's ledger; missing: node 0 "
            "(queued in pool 'gpu')"
        )
        found = describe_absent(self.seen(states), {0: "queued", 2: None}, "gpu")
        assert found.startswith("only 1 of the 2 nodes")
