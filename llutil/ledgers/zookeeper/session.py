"""A session on ZooKeeper: the keeper of it, and the writes that only a living node may make.

Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kazoo import exceptions as zk

from llutil.errors import ConfigError
from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerConflict,
    LedgerRefused,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.keys import check_folder, check_key, check_scope
from llutil.ledgers.protocol import (
    Created,
    Exists,
    Gone,
    Joined,
    Outcome,
    Record,
    SessionState,
    View,
)
from llutil.ledgers.will import Will
from llutil.ledgers.zookeeper import handshake, leases
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.handshake import Granted
from llutil.ledgers.zookeeper.keeping import Keeper, renew_session
from llutil.ledgers.zookeeper.leases import Granting
from llutil.ledgers.zookeeper.line import Line, LineOver
from llutil.ledgers.zookeeper.places import Node, Places, session_name
from llutil.ledgers.zookeeper.reading import Listing, Reader, pack

__all__ = ["ZooKeeperSession", "open_session"]

_LONGEST = 2_000_000  # seconds; ZooKeeper counts milliseconds in 32 bits
_MOST = 200  # deletions in one transaction


def open_session(
    config: ZooKeeperConfig,
    places: Places,
    ttl: float,
    on_change: Callable[[], None],
    *,
    deadline: float,
) -> ZooKeeperSession:
    """Open a session of ``ttl`` seconds and keep it.

    :raises ConfigError: the server does not grant ``ttl``.
    :raises LedgerRefused: it is no ZooKeeper, does not want us, or the chroot is not there.
    """
    if not 0.001 <= ttl <= _LONGEST:
        raise ConfigError(f"lease_ttl is {ttl:g} s; ZooKeeper counts in milliseconds from 1 on")
    granted = handshake.open_session(config, ttl, deadline=deadline)
    if round(granted.ttl * 1000) != round(ttl * 1000):
        handshake.end_session(config, granted.session, granted.password, deadline=deadline)
        raise ConfigError(
            f"lease_ttl is {ttl:g} s, but {config} grants {granted.ttl:g} s; a server grants from 2 to 20 times its "
            f"tickTime, unless it has a minSessionTimeout and a maxSessionTimeout; set lease_ttl to {granted.ttl:g}"
        )
    keepers: list[Keeper] = []

    def look() -> None:
        for keeper in keepers:
            keeper.look()

    line = Line(
        config,
        ttl,
        look,
        identity=(granted.session, granted.password),
    )
    granting = Granting(line, places)
    try:
        sent, rooted = renew_session(granting, deadline=deadline)
        if not rooted:
            raise LedgerRefused(
                f"the chroot {config.chroot!r} is not there on {config}; create it, or correct the endpoint"
            )
    except LineOver as error:
        line.close(deadline=deadline)
        raise LedgerUnavailable(
            f"open a session of {ttl:g} s: it was over before it was used: {error}"
        ) from error
    except BaseException:
        line.close(deadline=deadline)
        raise
    keeper = Keeper(granting, session_name(granted.session), ttl, sent, on_change)
    keepers.append(keeper)
    return ZooKeeperSession(granting, keeper, granted)


class ZooKeeperSession:
    """``llutil.ledgers.Session`` on ZooKeeper. Made by ``open_session``."""

    def __init__(self, granting: Granting, keeper: Keeper, granted: Granted) -> None:
        self._granting = granting
        self._line = granting.line
        self._places = granting.places
        self._keeper = keeper
        self._granted = granted
        self._name = session_name(granted.session)
        self._lives = 0
        """How often this session has left: the records of each life have names of their own."""
        self._tried: set[str] = set()
        """Keys that this session may have created."""
        self._tops: dict[str, set[str]] = {}
        """By lease: the top folders that its node is known to name."""

    @property
    def ttl(self) -> float:
        """Seconds that the session outlives its last renewal."""
        return self._keeper.ttl

    @property
    def lease(self) -> str:
        """The session's id and its password: who has both can end it."""
        return f"{self._name}-{self._granted.password.hex()}"

    @property
    def renewed(self) -> float:
        """``time.monotonic()`` when the last renewal that succeeded was sent."""
        return self._keeper.sent

    @property
    def state(self) -> SessionState:
        """The state now."""
        return self._keeper.state

    @property
    def will(self) -> Will:
        """To end the session by a handshake with its id and password."""
        return handshake.will(self._line.config, self._granted)

    @property
    def is_kept(self) -> bool:
        """Whether it is still renewed."""
        return self._keeper.is_alive

    def abandon(self, *, deadline: float) -> None:
        """Stop renewing it, and close its line."""
        self._keeper.stop(deadline=deadline)
        self._line.close(deadline=deadline)

    def _trying(self, what: str, act: Callable[[Reader, bool], Any], deadline: float) -> Any:
        """``Line.trying`` with a reader. :raises SessionLost: the session is over."""
        reader = self._granting.reader(deadline)

        def again(doubtful: bool) -> Any:
            if doubtful:
                reader.sync()  # another server may not have seen yet what the last one did
            return act(reader, doubtful)

        try:
            return self._line.trying(what, again, deadline=deadline)
        except LineOver as error:
            self._keeper.lose("ZooKeeper says that its time is over")
            raise self._lost(error) from error
        except LedgerClosed as error:
            if self.state is SessionState.LOST and not self._line.inherited:
                raise self._lost(error) from error
            raise

    def _lost(self, error: Exception) -> SessionLost:
        return SessionLost(f"session {self._name} on {self._line.config} is over: {error}")

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record, then read the folder's names and ``reads``."""
        key = check_key(check_folder(folder) + name)
        scopes = [check_scope(scope) for scope in reads]

        def act(reader: Reader, _: bool) -> Joined:
            own, listing = self._own(reader, folder, key, value)
            members = View(self._members(folder, listing, own), listing.revision)
            return Joined(own, members, {scope: reader.view(scope) for scope in scopes})

        joined: Joined = self._trying(f"join as {key!r}", act, deadline)
        return joined

    def _own(self, reader: Reader, folder: str, key: str, value: bytes) -> tuple[Record, Listing]:
        """The own record, created if it is not there, and the names in its folder from then on."""
        again = key in self._tried
        self._tried.add(key)
        while True:
            listing = reader.listing(folder) if again else None
            mine = self._mine(folder, listing, key) if listing else []
            again = True
            if not mine:
                created = self._put(reader, folder, key, value)
                listing = reader.listing(folder)
                mine = self._mine(folder, listing, key)
                if created not in [node.path for node in mine]:
                    continue  # somebody deleted it
            assert listing is not None
            (holder,) = [node for node in self._nodes(folder, listing) if node.key == key]
            extra = mine[1:] if self._is_mine(holder) else mine
            for node in extra:
                self._remove(reader, node.path)
            if not self._is_mine(holder):
                raise LedgerConflict(
                    f"join as {key!r}: that record is there already, of session {holder.session or '(none)'}; "
                    "every node needs a name of its own"
                )
            found = reader.records([holder])
            if found is None:
                continue
            if found[0].value != value:
                raise LedgerConflict(
                    f"join as {key!r}: this session has put that record already, with another value"
                )
            return found[0], listing

    def _put(self, reader: Reader, folder: str, key: str, value: bytes) -> str:
        """Create the own record. Its path."""
        stem = self._places.stem(key, f"{self._name}.{self._lives}")
        while True:
            try:
                path, stat = reader.ask(
                    lambda client: client.create_async(
                        stem, value, ephemeral=True, sequence=True, include_data=True
                    )
                )
            except zk.NoNodeError:
                reader.make_folder(self._places.folder(folder))
                continue
            if stat.ephemeralOwner != self._granted.session:
                raise LineOver("its connection has got another session")
            return str(path)

    def _remove(self, reader: Reader, path: str) -> None:
        try:
            reader.ask(lambda client: client.delete_async(path))
        except zk.NoNodeError:
            return

    def _nodes(self, folder: str, listing: Listing) -> list[Node]:
        return self._places.nodes(folder, listing.names)

    def _mine(self, folder: str, listing: Listing, key: str) -> list[Node]:
        """This session's records of that key, the oldest first; more than one if an answer was lost."""
        found = [self._places.node(folder, name) for name in listing.names]
        mine = [node for node in found if node and node.key == key and self._is_mine(node)]
        return sorted(mine, key=lambda node: node.sequence)

    def _is_mine(self, node: Node) -> bool:
        return node.session.startswith(f"{self._name}.")

    def _members(self, folder: str, listing: Listing, own: Record) -> tuple[Record, ...]:
        nodes = sorted(self._nodes(folder, listing), key=lambda node: (node.sequence, node.key))
        return tuple(
            own if node.key == own.key else Record(node.key, b"", node.sequence, node.session)
            for node in nodes
        )

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> Outcome:
        """Create records, all or none, in one transaction."""
        keys = [check_key(key) for key in values]
        what = f"create {', '.join(keys)}"
        tops = {_top(key) for key in keys}

        def act(reader: Reader, doubtful: bool) -> Outcome | None:
            while True:
                known = self._known_lease(reader, lease, tops)
                results = reader.ask(partial(self._creation, values, guard, known))
                failed = [
                    (index, one)
                    for index, one in enumerate(results)
                    if isinstance(one, Exception)
                    and not isinstance(one, zk.RolledBackError | zk.RuntimeInconsistency)
                ]
                if not failed:
                    self._tops.setdefault(lease, set()).update(tops)
                    created = self._created(reader, keys)
                    return Created(tuple(Record(key, values[key], created, lease) for key in keys))
                index, error = failed[0]
                if isinstance(error, zk.NoAuthError):
                    raise error
                there = self._there(reader, keys)
                if doubtful and {record.key: record.value for record in there} == values:
                    return Created(there)  # an earlier attempt of this call did it
                if index == 0:
                    return Gone()
                if there:
                    return Exists(there)
                if index > len(keys):
                    self._tops.pop(lease, None)
                    if isinstance(error, zk.NoNodeError):
                        return None
                elif isinstance(error, zk.NoNodeError):
                    for folder in dict.fromkeys(self._places.parent(key) for key in keys):
                        reader.make_folder(self._places.folder(folder))
                elif not isinstance(error, zk.NodeExistsError):
                    raise error

        outcome: Outcome | None = self._trying(what, act, deadline)
        if outcome is None:
            raise LeaseGone(f"{what}: {lease} on {self._line.config} is over")
        return outcome

    def _known_lease(self, reader: Reader, name: str, tops: set[str]) -> tuple[str, bytes, int]:
        """The lease's path, and what to write there so that it names ``tops`` (version -2: nothing)."""
        path = self._places.lease(name)
        if tops <= self._tops.get(name, set()):
            return path, b"", -2
        lease = leases.look(reader, self._places, name)
        if lease is None:
            return path, b"", -2  # the transaction finds out, after what matters more
        self._tops[name] = set(lease.tops)
        if tops <= self._tops[name]:
            return path, b"", -2
        more = tuple(sorted({*lease.tops, *tops}))
        return path, leases.Lease(name, lease.ttl, more, 0, 0).data, lease.version

    def _creation(
        self,
        values: Mapping[str, bytes],
        guard: Record,
        lease: tuple[str, bytes, int],
        client: Any,
    ) -> Any:
        path, data, version = lease
        name = path.rpartition("/")[2]
        transaction = client.transaction()
        transaction.check(self._places.path(guard), -1)
        for key, value in values.items():
            transaction.create(self._places.plain(key), pack(name, value))
        if version < -1:
            transaction.check(path, -1)
        else:
            transaction.set_data(path, data, version)
        return transaction.commit_async()

    def _created(self, reader: Reader, keys: list[str]) -> int:
        """The transaction that has just created these, as ZooKeeper counts them."""
        path = self._places.plain(keys[0])
        stat = reader.ask(lambda client: client.exists_async(path))
        return int(stat.czxid) if stat is not None else 0

    def _there(self, reader: Reader, keys: list[str]) -> tuple[Record, ...]:
        """Those of these records that exist."""
        found = [
            reader.records([Node(self._places.plain(key), key.lstrip("/"))]) or [] for key in keys
        ]
        return tuple(record for records in found for record in records)

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete what is in and below the scopes; a few hundred records in one transaction."""
        for scope in scopes:
            check_scope(scope)

        def act(reader: Reader, _: bool) -> bool:
            while True:
                paths, folders = self._below(reader, scopes)
                if not paths:
                    alive = self._exists(reader, guard)
                    if alive:
                        reader.remove_folders(folders)
                    return alive
                for start in range(0, len(paths), _MOST):
                    some = paths[start : start + _MOST]
                    results = reader.ask(partial(self._deletion, guard, some))
                    if isinstance(results[0], zk.NoNodeError):
                        return False
                    for one in results:
                        if isinstance(one, zk.NoAuthError):
                            raise one

        return bool(self._trying(f"delete {', '.join(scopes)}", act, deadline))

    def _below(self, reader: Reader, scopes: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """The records in and below the scopes, and the folders there."""
        paths: list[str] = []
        folders: list[str] = []
        listings: dict[str, Listing] = {}
        for scope in scopes:
            if scope.endswith("/"):
                nodes, more = reader.below(scope)
                folders += more
            else:
                parent = self._places.parent(scope)
                if parent not in listings:
                    listings[parent] = reader.listing(parent)
                nodes = reader.nodes(scope, listings[parent])
            paths += [node.path for node in nodes]
        return list(dict.fromkeys(paths)), folders

    def _exists(self, reader: Reader, record: Record) -> bool:
        path = self._places.path(record)
        return reader.ask(lambda client: client.exists_async(path)) is not None

    def _deletion(self, guard: Record, paths: list[str], client: Any) -> Any:
        transaction = client.transaction()
        transaction.check(self._places.path(guard), -1)
        for path in paths:
            transaction.delete(path)
        return transaction.commit_async()

    def leave(self, record: Record, *, deadline: float) -> None:
        """Delete the own record, if it is still there."""
        path = self._places.path(record)
        self._lives += 1
        self._trying(
            f"leave {record.key!r}", lambda reader, _: self._remove(reader, path), deadline
        )

    def grant(self, ttl: float, *, deadline: float) -> str:
        """A second, long lease of ``ttl`` seconds, kept by this session while it is open; and sweep old ones."""
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        lease = self._on_leases(lambda: leases.grant(self._granting, ttl, deadline=deadline))
        self._keeper.add(lease, sweep=True)
        return str(lease.name)

    def adopt(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on."""
        if self._keeper.keeps(lease):
            self._line.check()
            return
        renewed = self._on_leases(lambda: leases.renew(self._granting, lease, deadline=deadline))
        if renewed is None:
            raise LeaseGone(f"{lease} on {self._line.config} is over")
        self._keeper.add(renewed, sweep=False)

    def _on_leases(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except LineOver as error:
            self._keeper.lose("ZooKeeper says that its time is over")
            raise self._lost(error) from error

    def release(self, *, deadline: float) -> None:
        """End the session; stop keeping it in any case."""
        if self._line.inherited or self._keeper.state is not SessionState.LOST:
            self._line.check()
        self._keeper.stop(deadline=deadline)
        noted = self._line.close(deadline=deadline)
        if not noted and self.state is not SessionState.LOST:
            config, granted = self._line.config, self._granted
            handshake.end_session(config, granted.session, granted.password, deadline=deadline)
        self._keeper.finish()


def _top(key: str) -> str:
    """The top folder that a key lies in ("" if in none)."""
    first, slash, _ = key.partition("/")
    return first + slash if slash else ""
