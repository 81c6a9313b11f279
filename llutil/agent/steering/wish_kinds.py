"""The kinds of wishes: as the page has them, and in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from llutil.events.gate import Kinds
from llutil.rendezvous.protocol.gate_records import WishKind

__all__ = ["named", "on_page"]

_KINDS: Mapping[WishKind, Kinds] = {
    WishKind.CHECKPOINT: Kinds.CHECKPOINT,
    WishKind.STOP: Kinds.STOP,
    WishKind.PAUSE: Kinds.PAUSE,
}
_WORDS: Mapping[WishKind, str] = {
    WishKind.CHECKPOINT: "save a checkpoint",
    WishKind.STOP: "stop",
    WishKind.PAUSE: "pause",
    WishKind.RESUME: "resume",
    WishKind.DEBUGGER_START: "have the watchdogs of all nodes wait for a debugger",
    WishKind.DEBUGGER_END: "have the watchdogs of all nodes go on",
    WishKind.STACKS: "show the stacks of all ranks",
}


def on_page(kinds: Collection[WishKind]) -> Kinds:
    """What ranks do at a step."""
    told = Kinds.NOTHING
    for kind in kinds:
        told |= _KINDS.get(kind, Kinds.NOTHING)
    return told


def named(kinds: Collection[WishKind]) -> str:
    """As people say it."""
    return " and ".join(_WORDS[kind] for kind in WishKind if kind in kinds)
