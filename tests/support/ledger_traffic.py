"""A node that writes without a pause and a node that watches, for tests that disturb a store."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from llutil.ledgers import Created, Record, View, Watch
from tests.support.ledger_contract import DAY, Node, soon

__all__ = ["Reader", "Writer"]

_FEWEST = 21
"""How many records are written at least, however slow the machine is."""


class Writer:
    """A node that creates records, one after the other, until the ``with`` block ends, and there
    are enough.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._guard = node.join("writer").record
        self._lease = node.session.grant_lease(DAY, deadline=soon())
        self._stop = threading.Event()
        self._written: list[Record] = []
        self.longest = 0.0
        """Seconds that the slowest write took."""

    def __enter__(self) -> Writer:
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._write)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _write(self) -> None:
        for number in range(10**6):
            began = time.monotonic()
            outcome = self._node.create(self._guard, self._lease, **{f"{number:06}": b"me"})
            assert isinstance(outcome, Created)
            self.longest = max(self.longest, time.monotonic() - began)
            self._written += outcome.records
            if self._stop.is_set() and self.count >= _FEWEST:
                return

    @property
    def count(self) -> int:
        """How many records were acknowledged until now."""
        return len(self._written)

    def written(self) -> list[Record]:
        """All acknowledged records. Called after the ``with`` block."""
        self._done.result(30)
        return self._written


class Reader:
    """A node that keeps every view that its watch had."""

    def __init__(self, node: Node, scope: str) -> None:
        self.node = node
        self.views: list[View] = []
        self.watch: Watch = node.ledger.watch(scope, deadline=soon())

    def _look(self, last: Record) -> bool:
        view = self.watch.view()
        if not self.views or view is not self.views[-1]:
            self.views.append(view)
        return view.get(last.key) == last

    def check(self, written: list[Record]) -> None:
        """Watch until the last of these records is there. Check that all are there, in order, and
        that no view lost one.
        """
        assert len(written) >= _FEWEST
        self.node.changes.wait_for(lambda: self._look(written[-1]))
        assert list(self.watch.view().records) == written
        for before, after in itertools.pairwise(self.views):
            assert after.records[: len(before.records)] == before.records
