"""How one rank ended, as a value: what it said, what the kernel said, and what both mean for those
who report it.

Nothing here acts. It imports the standard library, ``outcome`` and ``llutil.system.exit_status``.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.agent.worker_side.outcome_pipe import ErrorNote, Returned
from llutil.system.exit_status import exit_text

__all__ = ["RankExit"]

_LONGEST_REASON = 500  # characters of an error's message that a reason repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExit:
    """How one rank ended. ``note`` is what it said; ``status`` what the kernel said (negative: a
    signal).

    ``at`` is when, on ``time.monotonic()``: when it failed by its own word, else when its end was
    noticed. ``asked`` says that it was asked or made to end before it had ended, and did not die of
    another signal than that.
    """

    rank: int
    local_rank: int
    pid: int
    status: int
    note: Returned | ErrorNote | None
    tail: tuple[str, ...]
    failed: bool
    at: float
    asked: bool = False

    @property
    def was_ended(self) -> bool:
        """Whether it failed only because it was ended with the round, and without a word of its
        own.
        """
        return self.failed and self.asked and self.note is None

    def failed_before(self, when: float) -> bool:
        """Whether it had failed by itself at ``when``, though its process may have been noticed to
        end later.
        """
        said_later = isinstance(self.note, ErrorNote) and self.at > when
        return self.failed and not self.was_ended and not said_later

    @property
    def reason(self) -> str:
        """One line, not too long: the error, or what the exit means."""
        match self.note:
            case ErrorNote(kind=kind, text=text):
                said = text.strip().splitlines()
                return f"{kind}: {said[0]}"[:_LONGEST_REASON] if said else kind
            case Returned() if self.failed:
                return exit_text(self.status)
            case None if self.failed and self.status == 0:
                return (
                    "ended with exit code 0 but returned no value "
                    "(os._exit, or an interrupted write)"
                )
            case _:
                return exit_text(self.status)
