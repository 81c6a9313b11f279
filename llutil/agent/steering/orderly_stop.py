"""How this node's ranks end at a step, when the platform takes the node away.

They are told to stop in the gate of a last checkpoint, if the ranks of the job agree on one in
time; else at their own next step. Whoever calls no step, does not come to it in time, or goes on in
spite of it, gets the signal.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from llutil.agent.steering.page_gates import Asked
from llutil.events.rank_slot import Slot

__all__ = ["OrderlyStop"]

_log = logging.getLogger(__name__)


class OrderlyStop:
    """This node's stop; ``asked`` once the platform has asked for it.

    ``alone`` says that ranks of this node stop without the others, and without a checkpoint.
    ``told`` is what they were told, or None.
    """

    def __init__(self) -> None:
        self.asked = self.alone = False
        self.told: Asked | None = None
        self.deadline = float("inf")
        self._agreed_until = float("inf")
        self._given_up = False

    def begin(self, now: float, seconds: float, *, alone: bool) -> None:
        """The platform asked at ``now``; ranks have ``seconds`` for an end of their own. Half of
        that may pass until the job agrees on a checkpoint.
        """
        self.asked, self.alone = True, alone
        self.deadline, self._agreed_until = now + seconds, now + seconds / 2

    def goes_on(self, now: float, slots: Iterable[Slot], ended: Collection[int]) -> bool:
        """Whether ranks may still come to an end of their own."""
        if self._given_up:
            return False
        if self.told is None:
            self.alone = self.alone or now >= self._agreed_until
        elif past := [
            slot.local_rank
            for slot in slots
            if slot.local_rank not in ended and slot.step > self.told.step
        ]:
            _log.warning(
                "local ranks %s went on after step %d, at which they were told to stop",
                past,
                self.told.step,
            )
            self._given_up = True
        if now >= self.deadline:
            _log.warning("ranks of this node did not end by themselves in time: they are signalled")
            self._given_up = True
        return not self._given_up
