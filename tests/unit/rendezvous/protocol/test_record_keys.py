"""Each record has a place of its own, legal in every store; what is stale is found by its key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.ledgers.keys import check_key, check_scope, holds
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Cause, Record, ReportKind, Stage
from tests.support.rendezvous_values import (
    answer,
    decision,
    gate,
    marker,
    member,
    report,
    round_of,
    verdict,
    wish,
)

RECORDS: list[Record] = [
    member("a"),
    round_of("ab"),
    round_of("ab", (1, 2)),
    verdict(Cause.LOST),
    marker(Cause.FAILED),
    report("a", ReportKind.SUCCEEDED),
    report("a", ReportKind.BACK),
    report("a", ReportKind.STOP),
    report("b", ReportKind.FAILED),
    report("a", ReportKind.SUCCEEDED, (1, 2)),
    wish("a"),
    wish("a", 2),
    wish("b"),
    gate(),
    gate(2),
    decision(5),
    decision(5, 2),
    answer("a", 5),
    answer("a", 5, 2),
    answer("b", 5),
]


@given(run_id=st.text(max_size=30), node=st.text(min_size=1, max_size=30))
def test_any_run_id_and_any_name_give_legal_keys(run_id: str, node: str) -> None:
    layout = RecordKeys(run_id)
    for record in (*RECORDS, member(node), report(node, ReportKind.BACK)):
        check_key(layout.key(record))
    for scope in (layout.members, layout.log, layout.reports(Stage(1, 0))):
        check_scope(scope)


def test_no_two_records_share_a_key() -> None:
    layout = RecordKeys("train")
    assert len({layout.key(record) for record in RECORDS}) == len(RECORDS)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_two_run_ids_share_a_root(one: str, other: str) -> None:
    assert (RecordKeys(one).root == RecordKeys(other).root) is (one == other)


def test_a_node_says_once_how_it_ended() -> None:
    layout = RecordKeys("train")
    assert layout.key(report("a", ReportKind.SUCCEEDED)) == layout.key(
        report("a", ReportKind.FAILED)
    )


def test_records_lie_in_the_folders_that_are_watched() -> None:
    layout = RecordKeys("train/it")
    assert holds(layout.members, layout.key(member("a")))
    assert all(holds(layout.log, layout.key(record)) for record in RECORDS[1:5])
    assert holds(layout.reports(Stage(1, 1)), layout.key(report("a", ReportKind.STOP)))
    assert not holds(layout.reports(Stage(1, 1)), layout.key(report("a", ReportKind.STOP, (1, 2))))


@given(spare=st.integers(0, 10**6))
def test_a_spare_key_is_legal_and_its_own_records(spare: int) -> None:
    layout = RecordKeys("train")
    for record in RECORDS:
        key = layout.spare_key(record, spare)
        check_key(key)
        assert [one for one in RECORDS if layout.is_key_of(key, one)] == [
            one for one in RECORDS if layout.key(one) == layout.key(record)
        ]


@pytest.mark.parametrize("end", ["+", "+0", "+01", "+x", "+1+1", "x", "+-1", "+1 "])
def test_what_only_begins_like_a_key_is_another_key(end: str) -> None:
    layout = RecordKeys("train")
    assert not any(layout.is_key_of(layout.key(one) + end, one) for one in RECORDS)


def _log(layout: RecordKeys, *records: Record) -> list[str]:
    return [layout.key(record) for record in records]


def test_once_a_round_is_sealed_all_before_it_is_stale() -> None:
    layout = RecordKeys("x")
    keys = _log(layout, round_of("a"), verdict(Cause.LOST), round_of("a", (1, 2)))
    assert set(layout.stale(keys, Stage(1, 2))) == {
        *keys[:2],
        layout.reports(Stage(1, 0)),
        layout.reports(Stage(1, 1)),
    }


def test_of_a_finished_generation_only_its_marker_stays() -> None:
    layout = RecordKeys("x")
    keep = layout.key(marker(Cause.SUCCEEDED, (2, 1)))
    keys = _log(
        layout,
        marker(Cause.FAILED, (1, 3)),
        round_of("a", (2, 1)),
        verdict(Cause.SUCCEEDED, (2, 1)),
        marker(Cause.SUCCEEDED, (2, 1)),
    )
    stale = layout.stale(keys, Stage(3, 0))
    assert set(keys) - set(stale) == {keep}
    assert layout.reports(Stage(2, 1)) in stale


def test_a_record_under_a_spare_key_is_as_stale_as_any() -> None:
    layout = RecordKeys("x")
    spare = layout.spare_key(round_of("a"), 2)
    newest = [layout.spare_key(marker(Cause.FAILED, (2, 1)), n) for n in range(2)]
    stale = layout.stale([spare, layout.key(marker(Cause.FAILED)), *newest], Stage(2, 0))
    assert spare in stale
    assert not {*newest} & {*stale}


@pytest.mark.parametrize(
    "name",
    ["notes", "1.2.3.assignment", "one.marker", "1.diary", ".marker", "9" * 5000 + ".marker"],
)
def test_what_is_not_ours_is_never_stale(name: str) -> None:
    layout = RecordKeys("x")
    assert layout.stale([layout.log + name], Stage(9, 0)) == ()


def test_wishes_lie_among_the_reports_and_answers_by_themselves() -> None:
    layout, stage = RecordKeys("train"), Stage(1, 1)
    assert holds(layout.reports(stage), layout.key(wish("a")))
    assert holds(layout.log, layout.key(gate()))
    assert holds(layout.log, layout.key(decision(5)))
    assert holds(layout.answers(stage, 2), layout.key(answer("a", 5, 2)))
    assert not holds(layout.answers(stage, 1), layout.key(answer("a", 5, 2)))


def test_a_rounds_gates_are_stale_with_the_round() -> None:
    layout = RecordKeys("train")
    records = [round_of("ab"), gate(), decision(5), gate(2)]
    keys = [*map(layout.key, records), f"{layout.key(gate())}+1"]
    assert layout.stale(keys, Stage(1, 1)) == ()
    stale = layout.stale(keys, Stage(1, 2))
    assert set(stale) == {
        *keys,
        *(layout.reports(Stage(1, number)) for number in (0, 1)),
        *(layout.answers(Stage(1, 1), number) for number in (1, 2)),
    }


def test_of_gates_that_are_decided_the_newest_and_the_newest_for_a_step_stay() -> None:
    layout, stage = RecordKeys("train"), Stage(1, 1)
    records = [gate(n) for n in (1, 2, 3, 12)] + [decision(5), decision(5, 2), decision(None, 3)]
    keys = [*map(layout.key, records), layout.key(gate(1)).replace("1.000001", "1.000002")]
    stale = layout.stale_gates(keys, stage, 3, 2, ())
    kept = {layout.key(gate(3)), layout.key(decision(5, 2)), layout.key(decision(None, 3))}
    gone = {layout.key(one) for one in (gate(1), gate(2), decision(5))}
    answers = {layout.answers(stage, number) for number in (1, 2, 3)}
    assert set(stale) == gone | answers
    assert not kept & set(stale)
    assert layout.key(gate(1)) in layout.stale_gates(keys, stage, 12, 0, ())


def test_wishes_that_are_heard_are_stale_with_the_gates_of_their_round() -> None:
    layout, stage = RecordKeys("train"), Stage(1, 1)
    wishes = {name: [wish(name, n) for n in range(1, 4)] for name in ("a", "b+1", "c")}
    keys = [layout.key(one) for own in wishes.values() for one in own]
    keys.append(layout.spare_key(wishes["a"][0], 2))
    others = [
        layout.key(report("a", ReportKind.SUCCEEDED)),
        layout.key(wish("a", 1)).replace("1.000001", "1.000002"),
        layout.reports(stage) + "wishes",
    ]
    assert all(map(layout.is_wish_key, keys))
    assert [layout.is_wish_key(key) for key in others] == [False, True, False]
    stale = layout.stale_gates([*keys, *others], stage, 1, 0, (("a.1", 2), ("b+1.1", 3)))
    heard = [*wishes["a"][:2], *wishes["b+1"]]
    assert set(stale) == {*map(layout.key, heard), keys[-1], layout.answers(stage, 1)}
