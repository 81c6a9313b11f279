"""The state of a watch, and of the stream that several watches share. Values without I/O or lock.

``Watches`` changes them, under its lock. Of ours this module imports ``llutil.ledgers`` and
``messages``.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable
from typing import Any

from llutil.ledgers.etcd import messages
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.keys import Namespace, by_arrival, holds
from llutil.ledgers.protocol import View

__all__ = ["Stream", "WatchState"]


class WatchState:
    """What one watch knows of its scope, and where it goes on."""

    def __init__(self, scope: str, since: View) -> None:
        self.scope = scope
        self.next = since.revision + 1  # the first revision that it has not seen
        self.stale = False  # whether the scope must be read again before it can go on
        self.refused = False  # whether etcd refused it when it was last asked
        self.number: int | None = None  # its name on the present stream
        self.refusal = ""  # why etcd refuses it, once that is certain
        self._records = {record.key: record for record in since.records}
        self._revision = since.revision
        self._view: View | None = since

    def reset(self, view: View) -> None:
        """Forget what was; this is the present state."""
        if (
            self.latest().records != view.records
        ):  # and not the last view that was made, which may be older
            self._view = view
            self._records = {record.key: record for record in view.records}
            self._revision = view.revision
        self.next = view.revision + 1
        self.stale = False

    def apply(self, namespace: Namespace, events: Iterable[Any]) -> bool:
        """Take in events; say whether the view is another one now."""
        before = self._revision
        for event in events:
            record = messages.to_record(namespace, event.kv)
            self.next = event.kv.mod_revision + 1
            if not holds(self.scope, record.key):
                continue
            if event.type == event.DELETE:
                self._records.pop(record.key, None)
            else:
                self._records[record.key] = record
            self._revision = event.kv.mod_revision
        return self._revision != before

    def latest(self) -> View:
        """The view, made only when it is asked for, and only once."""
        if self._view is None or self._view.revision != self._revision:
            self._view = View(by_arrival(self._records.values()), self._revision)
        return self._view


class Stream:
    """What was asked on one stream, and the numbers that etcd gave to it."""

    def __init__(self, namespace: Namespace) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.by_number: dict[int, WatchState] = {}
        self._namespace = namespace
        self._asked: deque[WatchState] = deque()  # etcd answers in the order in which it was asked

    def ask(self, watch: WatchState) -> None:
        """Ask for the events of ``watch``, from the first that it has not seen."""
        key, end = messages.span(self._namespace, watch.scope)
        watch.number = None
        self._asked.append(watch)
        self.requests.put(
            etcdrpc.WatchRequest(
                create_request=etcdrpc.WatchCreateRequest(
                    key=key, range_end=end, start_revision=watch.next
                )
            )
        )

    def answered(self) -> WatchState:
        """The watch that etcd has just answered for."""
        return self._asked.popleft()

    def cancel(self, number: int) -> None:
        """Ask for no more events of the watch of that number."""
        request = etcdrpc.WatchCancelRequest(watch_id=number)
        self.requests.put(etcdrpc.WatchRequest(cancel_request=request))
