"""The watches of one node: opened, opened again while the ledger is away, and asked for what is
new.

A watch is kept under a name of its owner's choice, one of each name. That it is wanted outlives a
ledger that cannot be reached: ``catch_up`` tries again. What a view means is the driver's to say.
Used by one thread. This module may import nothing but ``llutil.ledgers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.protocol import Ledger, View, Watch

__all__ = ["WatchSet"]


@dataclass(slots=True)
class _Wanted:
    scope: str
    since: View | None
    watch: Watch | None = None
    seen: View | None = None


class WatchSet:
    """The watches on ``ledger``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted: dict[str, _Wanted] = {}

    def watch(self, name: str, scope: str, deadline: float, since: View | None = None) -> bool:
        """Watch ``scope`` in place of what was watched as ``name``; say whether that could be done
        by now.

        ``since`` is the latest state of ``scope`` that is known already, which saves reading it.

        :raises LedgerRefused: the store refuses this watch.
        """
        self.close(name)
        self._wanted[name] = _Wanted(scope, since)
        return self.catch_up(deadline)

    def catch_up(self, deadline: float) -> bool:
        """Open what could not be opened before; say whether all is open now.

        :raises LedgerRefused: the store refuses one of these watches.
        """
        for wanted in self._wanted.values():
            if wanted.watch is None:
                try:
                    wanted.watch = self._ledger.watch(
                        wanted.scope, since=wanted.since, deadline=deadline
                    )
                except LedgerUnavailable:
                    return False
        return True

    def watches(self, name: str) -> bool:
        """Whether there is, or should be, a watch of that name."""
        return name in self._wanted

    def news(self) -> Iterator[tuple[str, View]]:
        """Names and views of the watches that show something new, their first view included.

        :raises LedgerRefused: the store refuses one of them.
        """
        for name, wanted in tuple(self._wanted.items()):
            if wanted.watch is None:
                continue
            view = wanted.watch.view()
            if view is not wanted.seen:
                wanted.seen = view
                yield name, view

    def last(self, name: str) -> View | None:
        """What ``news`` last gave for that name."""
        wanted = self._wanted.get(name)
        return wanted.seen if wanted else None

    def close(self, *names: str) -> None:
        """Watch these no more."""
        for name in names:
            wanted = self._wanted.pop(name, None)
            if wanted is not None and wanted.watch is not None:
                wanted.watch.close()
