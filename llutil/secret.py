"""Values that may not be shown: a password, a private key.

They are text and bytes like any other, and their ``repr`` does not tell them. So they are not in
the ``repr`` of what holds them, in a log line that formats such a value, or in a traceback that
shows local variables. This module may import nothing.
"""

from __future__ import annotations

__all__ = ["Secret", "SecretBytes", "concealed"]

TYPE_CHECKING = False
if TYPE_CHECKING:  # a guardian imports this, and typing is slow to import
    from typing import Any


class Secret(str):
    """Text that ``repr`` does not show. ``str`` and ``format`` give it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class SecretBytes(bytes):
    """Bytes that ``repr`` and ``str`` do not show."""

    def __repr__(self) -> str:
        return "b'***'" if self else "b''"

    __str__ = __repr__


def concealed(value: Any) -> Any:
    """``value``, which ``repr`` does not show if it is text or bytes."""
    match value:
        case Secret() | SecretBytes():
            return value
        case str():
            return Secret(value)
        case bytes():
            return SecretBytes(value)
        case _:
            return value
