"""Records survive the way through a store, and nothing that is not exactly one of ours is taken for
one.
"""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.errors import ConfigError
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
    in_order,
)
from llutil.rendezvous.protocol.record_codec import (
    VERSION,
    ForeignRecord,
    decode,
    encode,
)
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Member,
    Record,
    Report,
    ReportKind,
    Seat,
    Verdict,
)
from tests.support.rendezvous_values import job_failure, member, report, round_of, verdict

texts = st.text(st.characters(codec="utf-8") | st.just("\udcff"), max_size=12)
"""Also with bytes that were no UTF-8, as ``surrogateescape`` puts them into a text."""
numbers = st.integers(0, 10**9)
seats = st.builds(
    Seat, node=texts, name=texts, address=texts, role=texts, nproc=numbers, token=texts, label=texts
)
lists = st.lists(texts, max_size=3).map(tuple)
kinds = st.sets(st.sampled_from(WishKind)).map(in_order)
failures = st.none() | st.builds(
    Failure,
    rank=numbers,
    local_rank=numbers,
    group_rank=numbers,
    label=texts,
    host=texts,
    pid=numbers,
    restart=numbers,
    max_restarts=numbers,
    exit_status=st.integers(-64, 255),
    failure_class=st.sampled_from(FailureClass),
    reason=texts,
    trace=texts,
    tail=lists,
    echo=st.booleans(),
    step=numbers,
)
job_failures = st.none() | st.builds(
    JobFailure,
    why=texts,
    failure_class=st.sampled_from(FailureClass),
    fatal=st.booleans(),
    failure=failures,
)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        Member,
        node=texts,
        name=texts,
        host=texts,
        address=texts,
        role=texts,
        nproc=numbers,
        index=st.none() | numbers,
        token=texts,
        label=texts,
    ),
    st.builds(
        Assignment,
        generation=numbers,
        round=numbers,
        restarts=numbers,
        seats=st.lists(seats, min_size=1, max_size=3, unique_by=lambda seat: seat.node).map(tuple),
        host=texts,
        port=numbers,
        by=texts,
        away=lists,
    ),
    st.builds(
        Report,
        generation=numbers,
        round=numbers,
        node=texts,
        say=st.sampled_from(ReportKind),
        why=texts,
        token=texts,
        job_failure=job_failures,
    ),
    st.builds(
        Verdict,
        generation=numbers,
        round=numbers,
        cause=st.sampled_from(Cause),
        final=st.booleans(),
        by=texts,
        why=texts,
        nodes=lists,
        job_failure=job_failures,
    ),
    st.builds(
        Marker,
        generation=numbers,
        round=numbers,
        cause=st.sampled_from(Cause),
        by=texts,
        why=texts,
        nodes=lists,
        labels=lists,
        tokens=lists,
        job_failure=job_failures,
    ),
    st.builds(
        Wish,
        generation=numbers,
        round=numbers,
        node=texts,
        number=numbers,
        kinds=kinds,
        preempted=st.booleans(),
        why=texts,
    ),
    st.builds(
        Gate,
        generation=numbers,
        round=numbers,
        number=numbers,
        kinds=kinds,
        by=texts,
        heard=st.lists(st.tuples(texts, numbers), max_size=3).map(tuple),
        preempted=st.booleans(),
        why=texts,
    ),
    st.builds(
        GateAnswer,
        generation=numbers,
        round=numbers,
        number=numbers,
        node=texts,
        furthest=st.none() | numbers,
        refusal=texts,
    ),
    st.builds(
        GateDecision,
        generation=numbers,
        round=numbers,
        number=numbers,
        kinds=kinds,
        by=texts,
        step=st.none() | numbers,
        resumed=numbers,
        stacks=numbers,
        preempted=st.booleans(),
        why=texts,
    ),
)


@given(records)
def test_every_record_survives_the_way_through_a_store(record: Record) -> None:
    value = encode(record)
    assert decode("a/key", value) == record
    assert value.isascii()
    assert json.loads(value)["version"] == VERSION


@given(records)
def test_fields_of_a_newer_version_are_ignored(record: Record) -> None:
    body = json.loads(encode(record))
    told = body.get("job_failure") or {}
    for part in (body, told or None, told.get("failure"), *body.get("seats", ())):
        if part is not None:
            part["mood"] = {"of a newer": "version"}
    assert decode("a/key", json.dumps(body).encode()) == record


STORED = {
    "member": (
        b'{"version":2,"kind":"member","node":"a.1","name":"a","host":"a","address":"10.0.0.1",'
        b'"role":"trainer","nproc":1,"index":null,"token":"","label":""}',
        member("a"),
    ),
    "assignment": (
        b'{"version":2,"kind":"assignment","generation":1,"round":2,"restarts":0,"seats":[{"node":'
        b'"a.1","name":"a","address":"10.0.0.1","role":"trainer","nproc":1,"token":"","label":""}]'
        b',"host":"10.0.0.1","port":29500,"by":"a.1","away":["b.1"]}',
        round_of("a", (1, 2), away=("b.1",)),
    ),
    "report": (
        b'{"version":2,"kind":"report","generation":1,"round":1,"node":"a.1","say":"failed",'
        b'"why":"","token":"","job_failure":{"why":"rank 3: boom","failure_class":"user code",'
        b'"fatal":false,"failure":{"rank":3,"local_rank":1,"pid":4711,"exit_status":1,'
        b'"failure_class":"user code","reason":"boom","trace":"","tail":["bye"],"echo":false,"final_exception":"",'
        b'"group_rank":1,"label":"","host":"far","restart":0,"max_restarts":0,"step":0}}}',
        report("a", ReportKind.FAILED, job_failure=job_failure("boom", tail=("bye",))),
    ),
    "verdict": (
        b'{"version":2,"kind":"verdict","generation":1,"round":1,"cause":"lost","final":false,'
        b'"by":"a.1","why":"","nodes":["b.1"],"job_failure":null}',
        verdict(Cause.LOST, nodes=("b.1",)),
    ),
    "marker": (
        b'{"version":2,"kind":"marker","generation":1,"round":1,"cause":"stopped","by":"a.1",'
        b'"why":"","nodes":["a.1"],"labels":["one"],"tokens":["t"],'
        b'"job_failure":null}',
        Marker(
            generation=1,
            round=1,
            cause=Cause.STOPPED,
            by="a.1",
            nodes=("a.1",),
            labels=("one",),
            tokens=("t",),
        ),
    ),
}


@pytest.mark.parametrize(("value", "record"), STORED.values(), ids=STORED.keys())
def test_a_record_of_version_2_lies_in_a_store_like_this(value: bytes, record: Record) -> None:
    assert decode("a/key", value) == record
    assert json.loads(encode(record)) == json.loads(value)


def _changed(**changes: object) -> bytes:
    body = json.loads(encode(member("a")))
    body.update(changes)
    return json.dumps(body).encode()


FOREIGN = {
    "not JSON": (b"hello", "Expecting value"),
    "not even text": (b"\xff\xfe", "Expecting value"),
    "nested beyond measure": (b"[" * 100_000, "recursion depth"),
    "a list": (b"[1]", "Expected `object`, got `array`"),
    "no version": (b'{"kind":"member"}', "missing required field `version`"),
    "a version that is no number": (_changed(version="1"), "at `$.version`"),
    "no kind": (b'{"version":2}', "missing required field `kind`"),
    "an unknown kind": (_changed(kind="diary"), "Invalid value 'diary' - at `$.kind`"),
    "a kind that is no text": (_changed(kind=["member"]), "at `$.kind`"),
    "a missing field": (b'{"version":2,"kind":"member","node":"a.1"}', "missing required field"),
    "a text for a number": (_changed(nproc="2"), "Expected `int`, got `str` - at `$.nproc`"),
    "a negative number": (_changed(nproc=-1), "Expected `int` >= 0 - at `$.nproc`"),
    "a flag for a number": (_changed(nproc=True), "Expected `int`, got `bool` - at `$.nproc`"),
    "a number for a text": (_changed(role=7), "Expected `str`, got `int` - at `$.role`"),
}


@pytest.mark.parametrize(("value", "says"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_ours_is_refused_with_its_key(value: bytes, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode("run.x/members/a.1", value)
    assert "'run.x/members/a.1'" in str(caught.value)
    assert says in str(caught.value)
    assert "use another run id" in str(caught.value)


def test_another_version_of_the_format_is_named() -> None:
    with pytest.raises(
        ForeignRecord,
        match=r"has format 3, and this node reads format 2 only\. Run the same version",
    ) as caught:
        decode("key", _changed(version=3))
    assert caught.value.version == 3
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.version) == (str(caught.value), 3)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("boom", r"got `str` - at `\$.job_failure.failure`"),
        ({"rank": 1}, r"missing required field .* - at `\$.job_failure.failure`"),
        (
            {"rank": 1, "failure_class": None},
            r"got `null` - at `\$.job_failure.failure.failure_class`",
        ),
        (
            {"rank": 1, "failure_class": "bad luck"},
            r"at `\$.job_failure.failure.failure_class`",
        ),
    ],
)
def test_a_failure_that_is_not_exactly_one_of_ours_is_refused(failure: object, says: str) -> None:
    body = json.loads(encode(report("a", ReportKind.FAILED, job_failure=JobFailure())))
    body["job_failure"]["failure"] = failure
    with pytest.raises(ConfigError, match=says):
        decode("key", json.dumps(body).encode())


def test_a_round_with_a_member_twice_is_refused() -> None:
    body = json.loads(encode(round_of("ab")))
    body["seats"][1]["node"] = "a.1"
    with pytest.raises(ConfigError, match="wanted one seat or more, none twice"):
        decode("key", json.dumps(body).encode())
