"""A round's store as torch's agent gets it. It notes how far the agent has come.

torch's rendezvous interface has no call by which an agent could tell how its workers ended. But the
agent uses the round's store on its way (torch 2.13, ``elastic/agent/server/api.py``): it exchanges
ranks before it starts workers, and it goes to a barrier when all of its workers have succeeded, and
only then. Nothing tells when all agents have passed that barrier, so handlers count that here: the
store must outlive it. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from torch.distributed import PrefixStore, Store

__all__ = ["AgentStore"]

_RANKS = "torchelastic/role_info/"
_BARRIER = "torchelastic/agent/terminal_state"
_PASSED, _ALL_PASSED = "llutil/passed", "llutil/all passed"


class AgentStore(PrefixStore):
    """The keys of ``store`` under ``prefix``.

    ``on_success`` is called in the agent's thread when the agent's workers have succeeded, before
    it waits for the other agents.
    """

    def __init__(self, prefix: str, store: Store, on_success: Callable[[], None]) -> None:
        super().__init__(prefix, store)
        self._on_success = on_success
        self.of_an_agent = False
        """Whether an agent of torch's has begun to use it."""

    def set(self, key: str, value: str) -> None:
        """As in torch."""
        self.of_an_agent = self.of_an_agent or key.startswith(_RANKS)
        super().set(key, value)

    def add(self, key: str, amount: int) -> int:
        """As in torch."""
        if key.startswith(_BARRIER):
            self.of_an_agent = True
            self._on_success()
        return int(super().add(key, amount))

    def tell_passed(self, agents: int, patience: timedelta) -> None:
        """This agent, one of so many, will not use the store any more.

        :raises DistError: (torch's) the store is gone, or does not answer.
        """
        self.set_timeout(patience)
        if super().add(_PASSED, 1) == agents:
            super().set(_ALL_PASSED, "")

    def await_all_passed(self, patience: timedelta) -> None:
        """Wait until no agent will use the store any more.

        :raises DistError: (torch's) they do not tell.
        """
        self.wait([_ALL_PASSED], patience)
