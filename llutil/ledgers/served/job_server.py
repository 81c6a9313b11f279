"""``JobServer``: what a node does so that its job's ledger is served. It imports nothing."""

from __future__ import annotations

__all__ = ["JobServer"]


class JobServer:
    """Of a node that does nothing for it. ``LedgerServer`` serves, ``StandbyServer`` may later."""

    def settle(self) -> None:
        """The node is in a round, so somebody serves: begin to serve no more."""

    def close(self, *, goodbye: str = "", linger: float = 0.0) -> None:
        """Stop serving.

        ``linger``: wait so many seconds at most until no session lives, so that other nodes can
        read how the job ended. ``goodbye`` is what is told to the clients that are left.
        """

    def fds(self) -> set[int]:
        """What a forked child must not keep: it would hold the port."""
        return set()
