"""Records of others in the run's own folders: they end no job, and are named once by each node."""

from __future__ import annotations

from collections import Counter

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.record_codec import VERSION, ForeignRecord, encode
from llutil.rendezvous.protocol.records import Cause, ReportKind
from tests.support.memory_rendezvous import RUN, MemoryRendezvous, Node
from tests.support.rendezvous_values import marker, member, report, round_of, verdict

_GARBAGE = {
    "no text": b"\x00\xff",
    "no JSON": b"{",
    "a foreign record": b'{"name":"web-1","ready":true}',
    "an unknown kind": b'{"version":%d,"kind":"diary","generation":1,"round":1}' % VERSION,
    "a record of another place": encode(report("x", ReportKind.BACK, (7, 7))),
}
_NEWER = b'{"version":9,"kind":"diary","generation":1,"round":1}'

_STAGES = ((1, 1), (1, 2), (2, 1))
_KEYS = {
    RUN.members + "x",
    RUN.key(member("x")),
    RUN.log + "notes",
    RUN.log + "999999.marker",
    *(RUN.key(round_of("ab", stage)) for stage in _STAGES),
    *(RUN.key(verdict(Cause.FAILED, stage)) for stage in _STAGES),
    *(RUN.key(marker(Cause.FAILED, stage)) for stage in _STAGES),
    *(RUN.key(report("x", kind, stage)) for kind in ReportKind for stage in _STAGES[:2]),
    *(RUN.key(report(name, ReportKind.BACK)) for name in "ab"),
    *(RUN.key(report(name, ReportKind.FAILED, stage)) for name in "ab" for stage in _STAGES[:2]),
}
"""Where each kind of record lies, or will lie in this job, and where none does."""


def _live_through(rendezvous: MemoryRendezvous, first: Node, second: Node) -> None:
    """A failure, a restart, and success."""
    first.fails()
    agreed = rendezvous.again(first, second)
    assert (agreed.round, agreed.restarts) == (2, 1)
    for node in (first, second):
        node.succeeds()
    for node in (first, second):
        assert node.ends(do.FinishedWell).assignment == agreed


def _named(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """How often each key was named as ignored."""
    lines = [one for one in caplog.records if "is ignored" in one.message]
    assert all(one.levelname == "WARNING" for one in lines)
    return Counter(key for key in _KEYS for one in lines if repr(key) in one.message)


@pytest.mark.parametrize("value", _GARBAGE.values(), ids=_GARBAGE)
def test_what_lies_there_before_a_job_begins_does_not_matter_to_it(
    rendezvous: MemoryRendezvous, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    for key in _KEYS:
        rendezvous.write(key, value)
    first, second = rendezvous.gang("a", "b", lease_ttl=10.0)
    _live_through(rendezvous, first, second)
    named = _named(caplog)
    assert max(named.values()) <= 2  # by each node once
    assert named[RUN.members + "x"] == 2
    assert named[RUN.log + "notes"] == 2
    there = {one.key: one.value for one in rendezvous.ledger.read(RUN.log, deadline=1e9).records}
    assert there[RUN.log + "notes"] == value  # it is left alone
    late = rendezvous.node("c", min_nodes=1, max_nodes=2, token="t")
    assert late.starts().generation == 2  # the marker of the first one was read


@pytest.mark.parametrize("value", [*_GARBAGE.values(), _NEWER], ids=[*_GARBAGE, "a newer record"])
@pytest.mark.parametrize("leased", [False, True])
def test_what_comes_while_a_job_runs_does_not_matter_to_it(
    rendezvous: MemoryRendezvous, caplog: pytest.LogCaptureFixture, value: bytes, leased: bool
) -> None:
    first, second = rendezvous.gang("a", "b")
    written = {
        one for scope in ("members", "log") for one in rendezvous.keys(f"{RUN.root}{scope}/")
    }
    for key in _KEYS:
        if key.removeprefix(RUN.root) not in written:
            rendezvous.write(key, value, leased=leased)
    _live_through(rendezvous, first, second)
    assert max(_named(caplog).values()) <= 2


def test_a_node_that_comes_back_leads_though_a_record_of_another_is_older(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b", min_nodes=1, last_call=60.0)
    rendezvous.write(RUN.members + "x", b"web-1 was here", leased=True)
    third = rendezvous.node("c", min_nodes=1, max_nodes=2)
    first.dies()
    second.stops()
    assert rendezvous.again(second, third).nodes == ("b.1", "c.1")
    second.dies()
    third.stops()
    third.starts()
    third.succeeds()
    third.ends(do.FinishedWell)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_node_that_comes_into_a_run_of_another_version_is_refused(
    rendezvous: MemoryRendezvous, nodes: int
) -> None:
    rendezvous.write(RUN.members + "x.1", b'{"version":9,"kind":"member"}', leased=True)
    for name in "ab"[:nodes]:
        node = rendezvous.node(name, min_nodes=1, max_nodes=3)
        with pytest.raises(ForeignRecord) as raised:
            node.refuses_orders()
        text = str(raised.value)
        assert f"has format 9, and this node reads format {VERSION} only" in text
        assert "Run the same version of this package on all nodes" in text
    assert rendezvous.keys(RUN.members) == ["members/x.1"]


def test_a_node_that_finds_only_the_log_of_another_version_is_refused(
    rendezvous: MemoryRendezvous,
) -> None:
    rendezvous.write(RUN.key(round_of("x")), encode(round_of("x")))
    rendezvous.write(RUN.key(marker(Cause.SUCCEEDED)), b'{"version":9,"kind":"marker"}')
    node = rendezvous.node("a", min_nodes=1, max_nodes=1)
    with pytest.raises(ForeignRecord, match=r"000001\.marker' in the ledger has format 9"):
        node.refuses_orders()
    assert rendezvous.keys(RUN.members) == []


def test_a_node_that_comes_into_a_run_of_its_version_is_not_refused_for_newer_records(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b", min_nodes=1, last_call=60.0)
    rendezvous.write(RUN.members + "x.1", _NEWER, leased=True)
    rendezvous.write(RUN.log + "000001.000009.assignment", _NEWER)
    third = rendezvous.node("c", min_nodes=1, max_nodes=2)
    first.dies()
    second.stops()
    assert rendezvous.again(second, third).nodes == ("b.1", "c.1")
