"""Which nodes are there, as the leader sees it, and which of them could be in a round now.

A leader of a thousand nodes decides anew whenever one of them comes or reports. So what it decides
by is kept in sets, which are changed and not made anew. This module may import nothing but the
standard library and the room's records.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from operator import attrgetter

from llutil.rendezvous.protocol.records import Member

__all__ = ["Presence", "named"]

_NODE = attrgetter("node")
_MOST_NAMED = 8
"""How many nodes a text names one by one."""


@dataclass(slots=True)
class Presence:
    """The ``members`` that are there, in order of arrival.

    ``busy`` are the nodes that may have workers of an earlier round, unless they are ``back``.
    """

    members: tuple[Member, ...] = ()
    busy: frozenset[str] = frozenset()
    back: AbstractSet[str] = frozenset()
    living: frozenset[str] = field(init=False)
    """The identities of ``members``."""
    unready: set[str] = field(init=False)
    """Those of ``living`` that may have workers of an earlier round."""

    def __post_init__(self) -> None:
        self.living = frozenset(map(_NODE, self.members))
        self.unready = set((self.living & self.busy).difference(self.back))

    def shows(self, members: tuple[Member, ...], busy: frozenset[str]) -> bool:
        """Whether it was made of these."""
        return self.members is members and self.busy is busy

    @property
    def ready_count(self) -> int:
        """How many members could be in a round now."""
        return len(self.living) - len(self.unready)

    @property
    def ready(self) -> tuple[Member, ...]:
        """The members that could be in a round now, in order of arrival."""
        return tuple(member for member in self.members if member.node not in self.unready)


def named(nodes: Iterable[str]) -> str:
    """The names of some nodes for a text; of many, the first ones."""
    names = sorted(nodes)
    more = len(names) - _MOST_NAMED
    if more <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {more} others"
