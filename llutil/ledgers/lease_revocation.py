"""How another process can end the lease of a node that was killed: its ``LeaseRevocation``.

Without it, the records of a killed node stay until its lease expires. Some stores can end a lease
by one request that needs no client library. Their sessions have a ``LeaseRevocation``: the module
that sends the request, and its argument. The agent gives it to its guardian. The guardian sends the
request when no process of the node is left.

So a revocation is plain JSON. Its module runs in an interpreter without site-packages: it may
import nothing but the standard library and ``llutil``'s plain modules.

This module may import the standard library and ``llutil.errors``, and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llutil.errors import ConfigError

__all__ = ["LeaseRevocation"]

_PACKAGE = "llutil.ledgers."


@dataclass(frozen=True, slots=True)
class LeaseRevocation:
    """``module`` is a module of ``llutil.ledgers``; its function ``perform`` takes ``argument``.

    ``argument`` may hold a password. So it is not shown, and is passed between processes through
    pipes only.

    :raises ConfigError: ``module`` is not in ``llutil.ledgers``.
    """

    module: str
    argument: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.module.startswith(_PACKAGE):
            raise ConfigError(
                f"the module of a lease revocation is {self.module!r}; wanted one of {_PACKAGE}*"
            )

    def prepare(self) -> Callable[[], None]:
        """Import the module. The function that this returns ends the lease when it is called.

        That call takes a few seconds at most. It raises ``RendezvousError`` if the store did not
        end the lease.
        """
        perform = importlib.import_module(self.module).perform
        return lambda: perform(self.argument)

    def to_json(self) -> dict[str, Any]:
        """The revocation as JSON, including secrets."""
        return {"module": self.module, "argument": dict(self.argument)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LeaseRevocation:
        """The inverse of ``to_json``."""
        return cls(value["module"], value["argument"])
