"""A process that serves a ledger for tests, and knows more of it than a client may.

    python -m tests.support.served_process HOST PORT SECRET HISTORY

It prints its port, and then one line of JSON for each question on its standard input: ``left``,
``leases`` or ``requests``. It ends when that closes. Every change of a record is written to the
file HISTORY at once, so that it is there too when the process is killed. It imports no torch.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.protocol import Record
from llutil.ledgers.record_tree import RecordTree
from llutil.ledgers.served import server as served
from llutil.ledgers.served.client_state import ClientState
from llutil.ledgers.served.messages import Request

__all__ = ["main"]


class _RecordedTree(RecordTree):
    """Writes down what is added and removed."""

    def __init__(self, store: MemoryStore, history: Any) -> None:
        super().__init__()
        self._store = store
        self._history = history

    def add(self, path: str, record: Record) -> None:
        self._write(path, base64.b64encode(record.value).decode(), record)
        super().add(path, record)

    def remove(self, path: str) -> Record:
        record = super().remove(path)
        self._write(path, None, record)
        return record

    def _write(self, path: str, value: str | None, record: Record) -> None:
        line = json.dumps([path, value, self._store.revision, int(record.lease or "0", 16)])
        self._history.write(line.encode() + b"\n")


class _Observer:
    """What the tests may ask of a server."""

    def __init__(self, history: Any) -> None:
        self.requests: Counter[str] = Counter()
        observer = self

        class RecordedStore(MemoryStore):
            def __init__(self, *, first: int) -> None:
                super().__init__(first=first)
                self.records = _RecordedTree(self, history)

        class CountedClient(ClientState):
            def answer(self, request: Request) -> tuple[bytes, ...]:
                observer.requests[type(request.call).__name__] += 1
                return super().answer(request)

        served.MemoryStore = RecordedStore  # type: ignore[misc]
        served.ClientState = CountedClient  # type: ignore[misc]

    def answer(self, question: str, store: MemoryStore) -> Any:
        answers: dict[str, Callable[[], Any]] = {
            "left": lambda: [self._left(path, store) for path in store.records.below("/")],
            "leases": lambda: sorted(store.leases),
            "requests": lambda: self.requests,
        }
        with store.transaction():
            return answers[question]()

    @staticmethod
    def _left(path: str, store: MemoryStore) -> tuple[str, str, float]:
        """A record, and the seconds that its lease has."""
        record = store.records.get(path)
        assert record is not None
        deadlines = store._deadlines
        seconds = deadlines._deadlines[record.lease] - deadlines._now() if record.lease else 0.0
        return path, base64.b64encode(record.value).decode(), seconds


def main(host: str, port: str, secret: str, history: str) -> None:
    """Serve until the standard input closes."""
    with Path(history).open("wb", buffering=0) as file:
        observer = _Observer(file)
        server = served.LedgerServer(host, int(port), secret=secret)
        print(server.port, flush=True)
        for line in sys.stdin:
            print(json.dumps(observer.answer(line.strip(), server.store)), flush=True)
        server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
