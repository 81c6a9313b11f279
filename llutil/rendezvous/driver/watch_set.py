"""The watches of one node.

Each watch has a name that its owner chooses, and there is one watch of a name. If the ledger does
not answer when a watch is opened, ``catch_up`` tries again. Used by one thread. This module may
import nothing but ``llutil.ledgers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.protocol import Ledger, View, Watch

__all__ = ["WatchSet"]


@dataclass(slots=True)
class _NamedWatch:
    scope: str
    since: View | None
    watch: Watch | None = None
    seen: View | None = None


class WatchSet:
    """The watches on ``ledger``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watches: dict[str, _NamedWatch] = {}

    def watch(self, name: str, scope: str, deadline: float, since: View | None = None) -> bool:
        """Watch ``scope`` under ``name``, instead of what had that name before. Returns whether all
        watches are open now.

        ``since`` is the newest state of ``scope`` that is known already; it saves a read.

        :raises LedgerRefused: the store refuses this watch.
        """
        self.close(name)
        self._watches[name] = _NamedWatch(scope, since)
        return self.catch_up(deadline)

    def catch_up(self, deadline: float) -> bool:
        """Open the watches that could not be opened before. Returns whether all are open now.

        :raises LedgerRefused: the store refuses one of these watches.
        """
        for named in self._watches.values():
            if named.watch is None:
                try:
                    named.watch = self._ledger.watch(
                        named.scope, since=named.since, deadline=deadline
                    )
                except LedgerUnavailable:
                    return False
        return True

    def watches(self, name: str) -> bool:
        """Whether there is a watch of that name, or is to be one."""
        return name in self._watches

    def new_views(self) -> Iterator[tuple[str, View]]:
        """Names and views of the watches that show something new. The first view is new.

        :raises LedgerRefused: the store refuses one of them.
        """
        for name, named in tuple(self._watches.items()):
            if named.watch is None:
                continue
            view = named.watch.view()
            if view is not named.seen:
                named.seen = view
                yield name, view

    def last(self, name: str) -> View | None:
        """The view that ``new_views`` returned last for that name."""
        named = self._watches.get(name)
        return named.seen if named else None

    def close(self, *names: str) -> None:
        """Close the watches of these names."""
        for name in names:
            named = self._watches.pop(name, None)
            if named is not None and named.watch is not None:
                named.watch.close()
