"""What somebody else can still do for a node that died without a word: its ``LeaseRevocation``.

A session's records would stay until its lease expires. Where a store can end a lease by one request
that needs no client library, the session has a will: which module knows how, and with what. The
agent tells it to its guardian, which carries it out when nothing of the node runs any more. So a
will is plain JSON, and its module runs in an interpreter without site-packages: it may import
nothing but the standard library and ``llutil``'s plain modules.

This module may import nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llutil.errors import ConfigError

__all__ = ["LeaseRevocation"]

_ROOM = "llutil.ledgers."


@dataclass(frozen=True, slots=True)
class LeaseRevocation:
    """``module``, of this room, has a function ``perform`` that takes ``argument``.

    ``argument`` may hold a password: it is not shown, and goes from process to process through
    pipes only.

    :raises ConfigError: ``module`` is of another room.
    """

    module: str
    argument: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.module.startswith(_ROOM):
            raise ConfigError(f"the module of a will is {self.module!r}; wanted one of {_ROOM}*")

    def prepare(self) -> Callable[[], None]:
        """Import what it takes; to call what comes back is to carry the will out.

        That ends within a few seconds, and raises ``RendezvousError`` if the store did not do it.
        """
        perform = importlib.import_module(self.module).perform
        return lambda: perform(self.argument)

    def to_json(self) -> dict[str, Any]:
        """The will as JSON, secrets included."""
        return {"module": self.module, "argument": dict(self.argument)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LeaseRevocation:
        """What ``to_json`` gave."""
        return cls(value["module"], value["argument"])
