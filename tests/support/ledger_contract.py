"""What every ledger must do: one suite. The tests of each ledger inherit it and define ``world``.

A test's nodes live in one process, each with its own ledger. Nothing here sleeps: a test waits for
a node's callback. So a change that is not announced fails the test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from llutil.errors import ConfigError
from llutil.ledgers import (
    Created,
    CreateResult,
    Exists,
    GuardGone,
    Joined,
    LeaseGone,
    Ledger,
    LedgerClosed,
    LedgerConflict,
    LedgerUnavailable,
    Record,
    Session,
    SessionLost,
    SessionState,
    View,
)
from llutil.ledgers.session_keeper import Renewal

__all__ = [
    "Changes",
    "LedgerContract",
    "Node",
    "World",
    "keys",
    "renew_often",
    "soon",
    "wait_until",
]

# Seconds.
DAY = 86400.0


def soon(seconds: float = 30.0) -> float:
    """A deadline that many seconds from now."""
    return time.monotonic() + seconds


def wait_until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that no callback announces."""
    deadline = soon(seconds)
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def renew_often(patch: pytest.MonkeyPatch) -> None:
    """Have sessions renewed ten times a second, whatever their ttl is. So they hear soon what the
    store says of them, and a machine that stalls costs none.
    """
    patch.setattr(Renewal, "due", property(lambda renewal: renewal.sent + 0.1))


class Changes:
    """A ledger's callback that a test can wait on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> None:
        self._event.set()

    def wait_for_call(self, seconds: float = 60.0) -> None:
        """Wait until it is called, unless it was called since the last wait."""
        assert self._event.wait(seconds), f"not called within {seconds} s"

    def wait_for(self, happened: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until ``happened`` is true. It is asked again after each call of the callback, and
        only then.
        """
        deadline = soon(seconds)
        while True:
            self._event.clear()
            if happened():
                return
            assert self._event.wait(deadline - time.monotonic()), f"not within {seconds} s"


@dataclass
class Node:
    """A node of a job: its ledger, and its session from the first use on."""

    ledger: Ledger
    changes: Changes
    ttl: float
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """Its session, opened at the first use."""
        if self._session is None:
            self._session = self.ledger.open_session(self.ttl, deadline=soon())
        return self._session

    def join(self, name: str, value: bytes = b"me", folder: str = "members/") -> Joined:
        """Put its record."""
        return self.session.join(folder, name, value, deadline=soon())

    def create(self, guard: Record, lease: str, **values: bytes) -> CreateResult:
        """Create records in the folder log/."""
        keyed = {f"log/{key}": value for key, value in values.items()}
        return self.session.create(keyed, guard=guard, lease=lease, deadline=soon())

    def read(self, scope: str) -> dict[str, bytes]:
        """The values in the scope by key, in order of arrival."""
        view = self.ledger.read(scope, deadline=soon())
        return {record.key: record.value for record in view.records}


@dataclass
class World:
    """A store and the nodes on it. ``make`` makes a ledger from a namespace and a callback."""

    make: Callable[[str, Callable[[], None]], Ledger]
    namespace: str = "tests"
    ttl: float = 10.0
    nodes: list[Node] = field(default_factory=list)

    def node(self, namespace: str | None = None) -> Node:
        """A new node."""
        changes = Changes()
        node = Node(self.make(namespace or self.namespace, changes), changes, self.ttl)
        self.nodes.append(node)
        return node

    def delete(self, record: Record) -> None:
        """Delete a node's own record from outside. Its session lives on."""
        other = self.node()
        guard = other.join("other", folder="others/").record
        assert other.session.delete(record.key, guard=guard, deadline=soon())

    @contextmanager
    def open(self) -> Iterator[World]:
        """Close the ledgers of all nodes at the end."""
        try:
            yield self
        finally:
            for node in self.nodes:
                node.ledger.close()


def keys(view: View) -> list[str]:
    """The keys of a view, in order."""
    return [record.key for record in view.records]


class LedgerContract:
    """Inherit this class, and define a fixture ``world``."""

    # -- joining

    def test_nodes_are_ordered_by_arrival_and_each_learns_who_came_before(
        self, world: World
    ) -> None:
        names = ["zoe", "abe", "mia"]  # not the order of the alphabet
        joined = [world.node().join(name) for name in names]
        seen = [[record.name for record in one.members.records] for one in joined]
        assert seen == [names[:1], names[:2], names]
        assert len({one.record.created for one in joined}) == 3

    def test_joining_reads_the_own_value_only(self, world: World) -> None:
        world.node().join("a", b"secret of a")
        joined = world.node().join("b", b"secret of b")
        assert [record.value for record in joined.members.records] == [b"", b"secret of b"]

    def test_joining_reads_other_scopes_in_the_same_moment(self, world: World) -> None:
        first, second = world.node(), world.node()
        guard = first.join("a").record
        first.create(guard, first.session.grant_lease(DAY, deadline=soon()), one=b"1", two=b"2")
        reads = ("log/", "log/two", "reports/", "members/")
        joined = second.session.join("members/", "b", b"me", reads=reads, deadline=soon())
        assert [keys(joined.views[scope]) for scope in reads] == [
            ["log/one", "log/two"],
            ["log/two"],
            [],
            ["members/a", "members/b"],
        ]
        assert [record.value for record in joined.views["members/"].records] == [b"me", b"me"]

    def test_joining_again_under_the_same_name_finds_the_own_record(self, world: World) -> None:
        node = world.node()
        assert node.join("a", b"1").record == node.join("a", b"1").record

    def test_a_name_that_another_session_holds_is_a_conflict(self, world: World) -> None:
        world.node().join("a")
        with pytest.raises(LedgerConflict, match="members/a"):
            world.node().join("a")

    def test_the_own_record_with_another_value_is_a_conflict(self, world: World) -> None:
        node = world.node()
        node.join("a", b"1")
        with pytest.raises(LedgerConflict):
            node.join("a", b"2")

    # -- creating

    def test_a_record_is_created_once_and_a_second_creation_finds_it(self, world: World) -> None:
        one, two = world.node(), world.node()
        lease = one.session.grant_lease(DAY, deadline=soon())
        first = one.create(one.join("a").record, lease, seal=b"by a")
        second = two.create(two.join("b").record, lease, seal=b"by b")
        assert isinstance(first, Created)
        assert second == Exists(first.records)
        assert [(record.key, record.value) for record in first.records] == [("log/seal", b"by a")]
        assert first.records[0].lease == lease

    def test_of_two_records_all_or_none_are_created(self, world: World) -> None:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant_lease(DAY, deadline=soon())
        assert isinstance(node.create(guard, lease, one=b"1"), Created)
        both = node.create(guard, lease, one=b"x", two=b"x")
        assert isinstance(both, Exists)
        assert keys(View(both.records, 0)) == ["log/one"]
        assert node.read("log/") == {"log/one": b"1"}
        assert isinstance(node.create(guard, lease, two=b"2", three=b"3"), Created)
        assert node.read("log/") == {"log/one": b"1", "log/two": b"2", "log/three": b"3"}

    def test_nothing_is_created_once_the_own_record_is_gone(self, world: World) -> None:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant_lease(DAY, deadline=soon())
        world.delete(guard)
        assert node.create(guard, lease, seal=b"late") == GuardGone()
        node.join("a")  # a record of the same name is another record
        assert node.create(guard, lease, seal=b"late") == GuardGone()
        assert node.read("log/") == {}

    def test_of_many_creations_at_once_one_succeeds_and_all_find_it(self, world: World) -> None:
        nodes = [world.node() for _ in range(8)]
        guards = [node.join(f"n{index}").record for index, node in enumerate(nodes)]
        lease = nodes[0].session.grant_lease(DAY, deadline=soon())

        def create(index: int) -> CreateResult:
            return nodes[index].create(guards[index], lease, seal=f"by {index}".encode())

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(create, range(8)))
        created = [one for one in results if isinstance(one, Created)]
        assert len(created) == 1
        others = [one for one in results if one is not created[0]]
        assert others == [Exists(created[0].records)] * 7

    def test_nothing_is_created_on_a_lease_that_is_over(self, world: World) -> None:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant_lease(DAY, deadline=soon())
        node.ledger.end_lease(lease, deadline=soon())
        with pytest.raises(LeaseGone, match=lease):
            node.create(guard, lease, seal=b"x")

    # -- leases

    def test_records_outlive_their_node_while_another_one_keeps_their_lease_alive(
        self, world: World
    ) -> None:
        one, two = world.node(), world.node()
        lease = one.session.grant_lease(DAY, deadline=soon())
        one.create(one.join("a").record, lease, one=b"1")
        one.session.release(deadline=soon())
        guard = two.join("b").record
        (found,) = two.ledger.read("log/", deadline=soon()).records
        two.session.keep_alive(found.lease, deadline=soon())
        two.session.keep_alive(found.lease, deadline=soon())
        assert isinstance(two.create(guard, found.lease, two=b"2"), Created)
        assert two.read("log/") == {"log/one": b"1", "log/two": b"2"}

    def test_the_records_of_a_lease_end_with_it(self, world: World) -> None:
        node = world.node()
        lease = node.session.grant_lease(DAY, deadline=soon())
        node.create(node.join("a").record, lease, one=b"1", two=b"2")
        node.ledger.end_lease(lease, deadline=soon())
        node.ledger.end_lease(lease, deadline=soon())
        assert node.read("log/") == {}
        with pytest.raises(LeaseGone):
            world.node().session.keep_alive(lease, deadline=soon())

    def test_a_session_that_kept_a_lease_alive_hears_that_it_is_over(self, world: World) -> None:
        node = world.node()
        lease = node.session.grant_lease(1.0, deadline=soon())
        world.node().ledger.end_lease(lease, deadline=soon())

        def says_so() -> bool:
            try:
                node.session.keep_alive(lease, deadline=soon())
            except LeaseGone:
                return True
            return False

        # No callback announces the end: the session hears of it when it renews the lease next.
        wait_until(says_so)

    # -- deleting

    def test_deletes_take_keys_and_folders_with_everything_below_them(self, world: World) -> None:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant_lease(DAY, deadline=soon())
        for key in ("r/1/x", "r/1/y", "r/2/x", "r/1x", "log/one", "log/two"):
            node.session.create({key: b""}, guard=guard, lease=lease, deadline=soon())
        assert node.session.delete("r/1/", "log/one", "log/none", guard=guard, deadline=soon())
        assert [*node.read("r/1/"), *node.read("r/2/"), *node.read("r/"), *node.read("log/")] == [
            "r/2/x",
            "r/1x",
            "log/two",
        ]
        assert node.session.delete("r/", guard=guard, deadline=soon())
        assert not [*node.read("r/2/"), *node.read("r/")]

    def test_nothing_is_deleted_once_the_own_record_is_gone(self, world: World) -> None:
        one, two = world.node(), world.node()
        guard = one.join("a").record
        two.join("b")
        world.delete(guard)
        assert not one.session.delete("members/", guard=guard, deadline=soon())
        assert list(two.read("members/")) == ["members/b"]

    # -- sessions

    def test_a_session_is_connected_and_says_when_it_was_renewed(self, world: World) -> None:
        before = time.monotonic()
        session = world.node().session
        assert session.state is SessionState.CONNECTED
        assert session.gone == ""
        assert before <= session.renewed_at <= time.monotonic()
        assert session.ttl == world.ttl
        assert session.lease

    def test_a_release_deletes_the_members_record_at_once_and_watches_see_it(
        self, world: World
    ) -> None:
        one, two = world.node(), world.node()
        one.join("a")
        joined = two.join("b")
        watch = two.ledger.watch("members/", deadline=soon())
        since = joined.members.only("members/a")
        other = two.ledger.watch("members/a", since=since, deadline=soon())
        assert keys(other.view()) == ["members/a"]
        one.session.release(deadline=soon())
        assert one.session.state is SessionState.LOST
        assert one.session.gone == "", "the end of a session is not the end of its store"
        two.changes.wait_for(lambda: keys(watch.view()) == ["members/b"])
        two.changes.wait_for(lambda: not other.view().records)

    def test_a_session_that_another_node_ends_is_lost_and_cannot_join(self, world: World) -> None:
        one, two = world.node(), world.node()
        one.join("a")
        two.ledger.end_lease(one.session.lease, deadline=soon())
        with pytest.raises(SessionLost):
            one.join("again")
        assert one.session.state is SessionState.LOST
        one.changes.wait_for(lambda: one.session.state is SessionState.LOST)
        assert two.read("members/") == {}
        back = one.ledger.open_session(world.ttl, deadline=soon())
        joined = back.join("members/", "back", b"", deadline=soon())
        assert keys(joined.members) == ["members/back"]

    def test_a_session_that_another_node_ends_is_announced(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renew_often(monkeypatch)
        one, two = world.node(), world.node()
        session = one.session
        one.changes.wait_for(lambda: session.state is SessionState.CONNECTED)
        two.ledger.end_lease(session.lease, deadline=soon())
        one.changes.wait_for_call()
        assert session.state is SessionState.LOST

    # -- watching

    def test_a_watch_begins_with_the_present_state_and_follows_changes(self, world: World) -> None:
        one, two = world.node(), world.node()
        one.join("a", b"1")
        watch = two.ledger.watch("members/", deadline=soon())
        first = watch.view()
        assert [(record.name, record.value) for record in first.records] == [("a", b"1")]
        assert watch.view() is first
        for name in "bcd":
            world.node().join(name)
        two.changes.wait_for(lambda: len(watch.view().records) == 4)
        assert keys(watch.view()) == [f"members/{name}" for name in "abcd"]
        assert watch.view() is watch.view()

    def test_a_watch_continues_from_the_views_of_a_join(self, world: World) -> None:
        one, two = world.node(), world.node()
        joined = one.session.join("members/", "a", b"1", reads=("log/",), deadline=soon())
        other = two.join("b").record
        lease = two.session.grant_lease(DAY, deadline=soon())
        two.create(other, lease, seal=b"x")
        members = one.ledger.watch("members/", since=joined.members, deadline=soon())
        log = one.ledger.watch("log/", since=joined.views["log/"], deadline=soon())
        one.changes.wait_for(lambda: keys(members.view()) == ["members/a", "members/b"])
        one.changes.wait_for(lambda: keys(log.view()) == ["log/seal"])
        assert [record.value for record in members.view().records] == [b"1", b"me"]

    def test_a_watch_sees_its_scope_and_nothing_else(self, world: World) -> None:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant_lease(DAY, deadline=soon())
        folder = node.ledger.watch("x/", deadline=soon())
        key = node.ledger.watch("x/one", deadline=soon())
        for name in ("x", "x/one/deep", "x/onemore", "xx/one", "x/one"):
            node.session.create({name: b""}, guard=guard, lease=lease, deadline=soon())
        node.changes.wait_for(lambda: keys(folder.view()) == ["x/onemore", "x/one"])
        node.changes.wait_for(lambda: keys(key.view()) == ["x/one"])

    def test_a_closed_watch_keeps_its_last_view(self, world: World) -> None:
        node = world.node()
        watch = node.ledger.watch("members/", deadline=soon())
        other = node.ledger.watch("members/", deadline=soon())
        watch.close()
        watch.close()
        node.join("a")
        node.changes.wait_for(lambda: keys(other.view()) == ["members/a"])
        assert watch.view().records == ()

    # -- namespaces, keys, deadlines, closing

    @pytest.mark.parametrize(("mine", "others"), [("a", "b"), ("a", "ab"), ("a", "a/b")])
    def test_two_namespaces_never_see_each_other(
        self, world: World, mine: str, others: str
    ) -> None:
        one = world.node(f"{world.namespace}/{mine}")
        two = world.node(f"{world.namespace}/{others}")
        watch = one.ledger.watch("members/", deadline=soon())
        guard = one.join("me").record
        for folder in ("members/", "b/members/", "log/"):
            two.join(f"them-{folder[0]}", folder=folder)
        one.session.delete("members/", "b/", "log/", guard=guard, deadline=soon())
        one.changes.wait_for(lambda: not watch.view().records)
        assert [*two.read("members/"), *two.read("b/members/"), *two.read("log/")] == [
            "members/them-m",
            "b/members/them-b",
            "log/them-l",
        ]

    @pytest.mark.parametrize("scope", ["", "/", "a//b", "/a", "a/../b", "a/-/b", "-", "a\nb", "."])
    def test_a_key_that_is_not_words_is_refused(self, world: World, scope: str) -> None:
        with pytest.raises(ConfigError, match="ledger key"):
            world.node().ledger.read(scope, deadline=soon())

    def test_any_printable_word_is_a_key(self, world: World) -> None:
        node = world.node()
        names = ["ä ö", "a.b", "x=y,z", "名前", "%2F", "\\", "*"]
        for name in names:
            node.join(name, name.encode())
        assert list(node.read("members/")) == [f"members/{name}" for name in names]

    def test_a_call_after_its_deadline_does_nothing(self, world: World) -> None:
        node = world.node()
        session = node.session
        with pytest.raises(LedgerUnavailable, match="deadline had passed"):
            session.join("members/", "a", b"", deadline=time.monotonic() - 1)
        with pytest.raises(LedgerUnavailable):
            node.ledger.watch("members/", deadline=time.monotonic() - 1)
        assert node.read("members/") == {}

    def test_a_closed_ledger_is_refused_and_can_be_closed_again(self, world: World) -> None:
        node = world.node()
        session = node.session
        watch = node.ledger.watch("members/", deadline=soon())
        node.ledger.close()
        node.ledger.close()
        with pytest.raises(LedgerClosed):
            session.join("members/", "a", b"", deadline=soon())
        with pytest.raises(LedgerClosed):
            watch.view()
        with pytest.raises(LedgerClosed):
            node.ledger.open_session(world.ttl, deadline=soon())

    def test_a_ttl_of_zero_is_refused(self, world: World) -> None:
        with pytest.raises(ConfigError, match="lease_ttl"):
            world.node().ledger.open_session(0, deadline=soon())
