"""The state of a watch, and of the stream that several watches share. These classes do no I/O and
take no lock.

``EtcdWatchThread`` changes them, under its lock. This module may import ``llutil.ledgers`` and
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

__all__ = ["WatchState", "WatchStream"]


class WatchState:
    """What one watch knows of its scope, and the revision from which it continues."""

    def __init__(self, scope: str, since: View) -> None:
        self.scope = scope
        self.next_revision = since.revision + 1
        """The first revision whose events it has not seen."""
        self.stale = False
        """Whether the scope must be read again before the watch can continue."""
        self.refused = False
        """Whether etcd refused it when it was last requested."""
        self.watch_id: int | None = None
        """Its id on the present stream."""
        self.refusal = ""
        """Why etcd refuses it; empty until that is certain."""
        self._records = {record.key: record for record in since.records}
        self._revision = since.revision
        self._view: View | None = since

    def reset(self, view: View) -> None:
        """Replace the known state by ``view``, the present state."""
        # ``_view`` may be older than the known records, because ``latest`` makes it on demand.
        if self.latest().records != view.records:
            self._view = view
            self._records = {record.key: record for record in view.records}
            self._revision = view.revision
        self.next_revision = view.revision + 1
        self.stale = False

    def apply(self, namespace: Namespace, events: Iterable[Any]) -> bool:
        """Apply events; say whether the view has changed."""
        before = self._revision
        for event in events:
            record = messages.to_record(namespace, event.kv)
            self.next_revision = event.kv.mod_revision + 1
            if not holds(self.scope, record.key):
                continue
            if event.type == event.DELETE:
                self._records.pop(record.key, None)
            else:
                self._records[record.key] = record
            self._revision = event.kv.mod_revision
        return self._revision != before

    def latest(self) -> View:
        """The view. It is made on demand, once for each state."""
        if self._view is None or self._view.revision != self._revision:
            self._view = View(by_arrival(self._records.values()), self._revision)
        return self._view


class WatchStream:
    """The watches that were requested on one stream, and the ids that etcd gave them."""

    def __init__(self, namespace: Namespace) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.by_watch_id: dict[int, WatchState] = {}
        self._namespace = namespace
        self._unanswered: deque[WatchState] = (
            deque()
        )  # etcd answers in the order in which it was asked

    def request_events(self, watch: WatchState) -> None:
        """Request the events of ``watch``, from the first one that it has not seen."""
        key, end = messages.key_range(self._namespace, watch.scope)
        watch.watch_id = None
        self._unanswered.append(watch)
        self.requests.put(
            etcdrpc.WatchRequest(
                create_request=etcdrpc.WatchCreateRequest(
                    key=key, range_end=end, start_revision=watch.next_revision
                )
            )
        )

    def next_answered(self) -> WatchState:
        """The watch that etcd's next answer is for."""
        return self._unanswered.popleft()

    def cancel(self, watch_id: int) -> None:
        """Request no more events for the watch with that id."""
        request = etcdrpc.WatchCancelRequest(watch_id=watch_id)
        self.requests.put(etcdrpc.WatchRequest(cancel_request=request))
