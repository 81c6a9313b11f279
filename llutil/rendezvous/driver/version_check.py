"""Whether a node may take part in a run: only if the run speaks its version of the records.

A record of another version ends no job: who is in a run ignores it. But a node that comes new into
a run of another version understands nothing of it. If it ignored what it cannot read, it would
begin a job of its own beside the one that runs, or repeat one that has succeeded. So it is refused.

Which version a run speaks is known by its oldest living member, since that one leads. A node looks
for it from the youngest of the older members on, as it does for its predecessor: one of its own
version leads, or follows one that does. If no such member is left, the log tells: its newest record
is by whoever led last. Whom a leader gave a seat had one of its own version. So a stray record of
another version refuses nobody as long as a member of the run lives.

This module may import nothing but the room's values.
"""

from __future__ import annotations

from collections.abc import Iterable

from llutil.rendezvous.protocol.record_codec import ForeignRecord
from llutil.rendezvous.protocol.records import Member, Record
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["VersionCheck"]


class VersionCheck:
    """What one node knows of its run's version. ``joined`` is called first."""

    def __init__(self) -> None:
        self._known = False
        """Whether this node was in the run before, under whichever identity."""
        self._accepted = False
        self._node = ""
        self._older: set[str] = set()
        self._other: ForeignRecord | None = None

    def joined(
        self, node: str, older: Iterable[str], newest: Record | ForeignRecord | None
    ) -> None:
        """The node has joined as ``node``, behind the members ``older``. ``newest`` is the newest
        record of the log, of whichever version.

        :raises ForeignRecord: the run speaks another version.
        """
        self._node, self._accepted, self._older, self._other = node, False, set(older), None
        if not self._known and isinstance(newest, ForeignRecord):
            self._other = newest
        self._conclude()

    def saw_log(self, log: RunHistory) -> None:
        """The log is this, as far as this version can read it."""
        if log.assignment is not None and log.assignment.seat(self._node) is not None:
            self._accepted = self._known = True

    def saw(self, name: str, member: Record | ForeignRecord | None) -> bool:
        """The record of the older member ``name`` is this, or is gone. Says whether it is a
        member's that counts.

        :raises ForeignRecord: the run speaks another version.
        """
        if isinstance(member, Member):
            self._accepted = self._known = True
            return True
        if isinstance(member, ForeignRecord) and member.version is not None:
            self._other = member
        self._older.discard(name)
        self._conclude()
        return False

    def _conclude(self) -> None:
        if self._older or self._accepted:
            return
        if self._other is not None:
            raise self._other
        self._accepted = self._known = True
