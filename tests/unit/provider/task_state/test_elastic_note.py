"""The value of the key ``elastic``: what it says of a job."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace as changed

from airflow_provider.task_state.elastic_form import read_earlier
from airflow_provider.task_state.elastic_note import Ended
from llutil.agent_socket.messages import State
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.task_link.job_events import (
    NodeStatus,
    Progress,
    RoundBegan,
    RoundEnded,
    Saved,
    Steered,
    TimeSpent,
)
from tests.unit.provider.task_state.elastic_values import (
    FACTS,
    a_round,
    failed,
    failure,
    heard,
    later,
    note_of,
    status,
)

SUCCESS = Ended(outcome="succeeded", succeeded=True)
FIELDS = """version time every try run_id backend host label node nodes min_nodes max_nodes
    world_size restarts max_restarts doing detail outcome succeeded entrypoint seconds rate
    seconds_left ranks rounds curves checkpoints failure account left_out"""


def test_a_running_node_says_all_of_itself():
    note = note_of([*a_round(1, 2), status(3, 2, rate=2.00049, seconds_left=4.0)])
    assert list(note) == FIELDS.split()
    assert (note["version"], note["try"], note["run_id"], note["backend"]) == (1, 2, "r", "etcd-v3")
    assert (note["host"], note["label"], note["node"], note["nodes"]) == ("host-a", "t.0", 0, 2)
    assert (note["min_nodes"], note["max_nodes"], note["world_size"]) == (1, 2, 4)
    assert (note["doing"], note["succeeded"], note["outcome"]) == ("runs", None, "")
    assert (note["rate"], note["seconds_left"], note["every"]) == (2.0, 4.0, 5.0)
    assert note["time"] == "2026-11-29T12:00:04+00:00"
    assert note["ranks"][0] == {
        "rank": 0,
        "local_rank": 0,
        "pid": 100,
        "step": 3,
        "total": 10,
        "doing": "steps",
        "silent": 0.2,
    }
    assert (note["failure"], note["account"], note["left_out"]) == (None, None, [])
    assert json.loads(json.dumps(note, allow_nan=False)) == note


def test_steps_that_came_after_the_last_status_are_in_it():
    note = note_of([*a_round(), status(3, 2), Progress({0: (5, 10), 1: (4, 10)})])
    assert [rank["step"] for rank in note["ranks"]] == [5, 4]


def test_a_round_is_told_with_who_was_in_it_and_what_ended_it():
    note = note_of([*a_round(1, 2), RoundBegan(0, 0, ()), failed(1), *a_round(2)])
    first, second = note["rounds"]
    assert first == {
        "try": 2,
        "began": "2026-11-29T12:00:00+00:00",
        "round": 1,
        "ended": "2026-11-29T12:00:04+00:00",
        "world_size": 4,
        "nodes": ["t.0", "t.1"],
        "node": 0,
        "first_step": 1,
        "last_step": 2,
        "end": "failure",
        "why": "rank 1: ValueError: boom",
    }
    assert (second["ended"], second["end"], second["first_step"]) == (None, "", 2)


def test_what_is_known_later_of_a_rounds_end_counts():
    verdict = RoundEnded(RoundEnd(kind=RoundEndKind.LOST, why="node 1 was lost"))
    note = note_of([*a_round(1), RoundBegan(0, 0, ()), failed(1), verdict])
    (told,) = note["rounds"]
    assert (told["end"], told["why"]) == ("lost", "node 1 was lost")
    assert note["failure"]["rank"] == 1


def test_a_node_between_two_rounds_shows_the_ranks_of_the_last_one():
    note = note_of([*a_round(4), RoundBegan(0, 0, ()), status()])
    assert (note["doing"], note["node"], note["nodes"], note["world_size"]) == ("waits", 0, 2, 4)
    assert [rank["step"] for rank in note["ranks"]] == [4, 4]


def test_a_node_that_still_waits_for_its_first_round_has_no_ranks():
    note = note_of([status()])
    assert (note["doing"], note["node"], note["ranks"], note["rounds"]) == ("waits", None, [], [])


def test_a_failure_names_the_culprit_and_who_failed_after_it():
    end = Ended(outcome="failed: x", succeeded=False, failure=failure(1), report="the\nreport")
    note = note_of([*a_round(1), RoundBegan(0, 0, ()), failed(1, 0)], end)
    told = note["failure"]
    assert (note["doing"], note["succeeded"], note["outcome"]) == ("ended", False, "failed: x")
    assert (told["class"], told["rank"], told["host"], told["fatal"]) == (
        "user code",
        1,
        "host-a",
        False,
    )
    assert told["report"] == "the\nreport"
    assert [(one["rank"], one["culprit"], one["exit"]) for one in told["ranks"]] == [
        (1, True, 1),
        (0, False, -6),
    ]


def test_a_culprit_on_another_node_is_named_too():
    end = Ended(outcome="failed", succeeded=False, failure=failure(9, host="host-b"))
    note = note_of([*a_round(1), RoundBegan(0, 0, ()), failed(1)], end)
    assert [(one["rank"], one["host"], one["culprit"]) for one in note["failure"]["ranks"]] == [
        (9, "host-b", True),
        (1, "host-a", False),
    ]


def test_a_failure_that_a_restart_mends_is_shown_until_the_job_succeeds():
    events = [*a_round(1), RoundBegan(0, 0, ()), failed(1), *a_round(2)]
    told = note_of(events)["failure"]
    assert (told["why"], told["report"]) == ("rank 1: ValueError: boom", "")
    assert note_of(events, SUCCESS)["failure"] is None


def test_a_failure_without_a_rank_is_told():
    from llutil.failure import FailureClass, JobFailure

    told = JobFailure(why="no nodes", failure_class=FailureClass.INFRASTRUCTURE)
    note = note_of([status()], Ended(outcome="failed", succeeded=False, failure=told))
    assert (note["failure"]["rank"], note["failure"]["ranks"]) == (None, [])
    assert note["failure"]["class"] == "infrastructure"


def test_a_try_that_only_gives_its_slot_back_has_not_ended():
    end = Ended(outcome="waits for its siblings", succeeded=False, goes_on=True)
    note = note_of([status()], end)
    assert (note["doing"], note["succeeded"], note["failure"]) == ("waits", None, None)


@pytest.mark.parametrize(
    ("resume", "ended", "wanted"),
    [
        ("auto", None, 8),
        ("auto", Ended(outcome="failed", succeeded=False), 8),
        ("auto", SUCCESS, None),
        ("always", SUCCESS, 8),
        ("never", None, None),
    ],
)
def test_what_a_rerun_goes_on_from_depends_on_the_end_and_on_the_users_wish(resume, ended, wanted):
    from dataclasses import replace

    events = [*a_round(1), Saved(4), Saved(8)]
    note = note_of(events, ended, facts=replace(FACTS, resume=resume))
    assert [one["step"] for one in note["checkpoints"]["committed"]] == [4, 8]
    assert note["checkpoints"]["next"] == wanted


def test_without_a_new_checkpoint_the_next_try_goes_on_from_the_same_one():
    note = note_of([*a_round(1), status(5, 5, resumed_from=4)])
    assert (note["checkpoints"]["resumed_from"], note["checkpoints"]["next"]) == (4, 4)


def test_a_step_that_was_saved_again_counts_once():
    note = note_of([*a_round(1), Saved(4), Saved(8), *a_round(5), Saved(6), Saved(8)])
    assert [one["step"] for one in note["checkpoints"]["committed"]] == [4, 6, 8]


def test_an_account_is_in_words_and_numbers():
    note = note_of([*a_round(1), TimeSpent(90.04, 0.941, 2, "2 min, 94 % training")], SUCCESS)
    assert note["account"] == {
        "seconds": 90.0,
        "training_percent": 94.1,
        "restarts": 2,
        "text": "2 min, 94 % training",
    }
    assert note["seconds"] == 90.0


def test_what_was_asked_is_shown():
    note = note_of([*a_round(1), Steered("x"), status(1, 1, state=State.PAUSED, detail="paused")])
    assert (note["doing"], note["detail"]) == ("paused", "paused")


def test_a_retry_goes_on_where_the_last_try_ended():
    before = note_of([*a_round(1, 2, 3), Saved(2)])
    note = note_of([*a_round(3, 4)], earlier={**before, "time": "t"})
    old, new = note["rounds"]
    assert (old["ended"], old["end"]) == ("t", "lost")
    assert "gone before it could say" in old["why"]
    assert (new["ended"], new["first_step"]) == (None, 3)
    assert [point[0] for point in note["curves"]["metrics"]["loss"]] == [1, 2, 3, 4]
    assert note["checkpoints"]["next"] == 2


def test_a_job_that_begins_afresh_after_a_success_resumes_from_nothing_old():
    before = note_of([*a_round(1, 2), Saved(2)], SUCCESS)
    note = note_of(a_round(1), earlier=before)
    assert note["checkpoints"]["committed"] == []
    assert note["checkpoints"]["next"] is None
    assert len(note["rounds"]) == 2


@pytest.mark.parametrize(
    "value",
    [
        7,
        "text",
        [],
        {},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"version": 1, "rounds": 7},
        {"version": 1, "rounds": [{"round": 1}]},
        {"version": 1, "curves": {"metrics": {"loss": [[1]]}}},
        {"version": 1, "checkpoints": {"committed": [{"step": "x", "time": ""}]}},
    ],
)
def test_what_no_earlier_try_has_written_is_refused(value):
    with pytest.raises(ValueError, match=r"."):
        read_earlier(value)


def test_fields_of_a_newer_writer_are_ignored():
    before = {**note_of(a_round(1)), "new": 1}
    before["rounds"][0]["new"] = 1
    assert len(note_of(a_round(2), earlier=before)["rounds"]) == 2


def test_a_round_that_still_runs_at_the_end_ends_with_the_try():
    seen = heard(a_round(1))
    seen.end(later(60), "the agent was killed", succeeded=False)
    told = seen.seen()
    assert told is not None
    (last,) = told.rounds
    assert (last.ended, last.end, last.why) == (
        "2026-11-29T12:01:00+00:00",
        "lost",
        "the agent was killed",
    )


def test_a_job_of_which_nothing_was_told_is_not_seen():
    assert heard([RoundBegan(0, 1, (0,)), Progress({0: (1, 1)})]).seen() is None


def test_numbers_that_json_does_not_know_are_left_out_or_text():
    infinite = changed(status(1, 1).status, rate=float("inf"), seconds_left=float("nan"))
    events = [*a_round(1), NodeStatus(infinite), Progress({0: (2, 0)}, {"loss": float("nan")})]
    note = note_of(events)
    assert (note["rate"], note["seconds_left"]) == (None, None)
    assert note["curves"]["metrics"]["loss"][-1][2] == "nan"
    json.dumps(note, allow_nan=False)
