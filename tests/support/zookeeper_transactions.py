"""All that was ever written into a ZooKeeper, read from its transaction log, as changes of an etcd
are.

ZooKeeper appends every transaction to a file before it answers. The files of a young server hold
all of them, so that nothing has to be watched while a test runs. Formats: ``TxnHeader`` and the
records of ``zookeeper.jute`` (3.6 to 3.9).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.zookeeper_servers import ZooKeeperServer

__all__ = ["Transaction", "transactions"]


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one transaction made and removed: paths and data. ``session`` is who asked for it.

    ``kind`` is ZooKeeper's number: -10 and -11 are a session's beginning and end, -1 is a write
    that failed.
    """

    zxid: int
    session: int
    kind: int
    made: dict[str, bytes] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    owners: dict[str, int] = field(default_factory=dict)


class _Buffer:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> int:
        size = struct.calcsize(form)
        (value,) = struct.unpack_from(">" + form, self._data, self._at)
        self._at += size
        return int(value)

    def bytes(self) -> bytes:
        length = max(0, self.take("i"))
        self._at += length
        return self._data[self._at - length : self._at]

    def text(self) -> str:
        return self.bytes().decode()

    def left(self) -> int:
        return len(self._data) - self._at


def transactions(server: ZooKeeperServer) -> Iterator[Transaction]:
    """All transactions of a server, in order."""
    seen: set[int] = set()
    for file in sorted(
        server.data.glob("version-2/log.*"), key=lambda path: int(path.suffix[1:], 16)
    ):
        data = file.read_bytes()
        at = 16  # magic, version, database
        while at + 12 <= len(data):
            _, length = struct.unpack_from(">qi", data, at)
            if length <= 0:
                break
            transaction = _read(_Buffer(data[at + 12 : at + 12 + length]))
            if transaction.zxid not in seen:
                seen.add(transaction.zxid)
                yield transaction
            at += 12 + length + 1


def _read(buffer: _Buffer) -> Transaction:
    session, _, zxid, _, kind = (buffer.take(form) for form in "qiqqi")
    transaction = Transaction(zxid, session, kind)
    _apply(transaction, kind, buffer)
    return transaction


def _apply(transaction: Transaction, kind: int, buffer: _Buffer) -> None:
    match kind:
        case 1 | 15:  # create, create2
            path, data = buffer.text(), buffer.bytes()
            for _ in range(buffer.take("i")):
                _ = buffer.take("i"), buffer.text(), buffer.text()  # permissions, scheme, id
            if buffer.take("?"):
                transaction.owners[path] = transaction.session
            transaction.made[path] = data
        case 2:  # delete
            transaction.gone.append(buffer.text())
        case -11 if buffer.left() >= 4:  # the end of a session
            transaction.gone.extend(buffer.text() for _ in range(buffer.take("i")))
        case 14:  # multi
            parts = [(buffer.take("i"), buffer.bytes()) for _ in range(buffer.take("i"))]
            if all(part != -1 for part, _ in parts):
                for part, data in parts:
                    _apply(transaction, part, _Buffer(data))
        case _:
            pass
