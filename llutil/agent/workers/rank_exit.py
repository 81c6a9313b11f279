"""How one rank ended, as a value: what it reported, its exit status, and what both mean.

Nothing here acts. It imports the standard library, ``worker_side.outcome_pipe`` and
``llutil.system``.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.agent.worker_side.outcome_pipe import ErrorNote, Note, Refused, Returned
from llutil.system.exit_status import exit_text
from llutil.system.printable import printable

__all__ = ["RankExit"]

# Characters of the longest reason.
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExit:
    """How one rank ended. ``note`` is what it reported; ``status`` is its exit status (negative: a
    signal). ``tail`` is the end of its standard error.

    ``at`` is when, on ``time.monotonic()``: when it reported its failure, else when its end was
    noticed. ``stopped_by_agent`` says that the agent asked or forced it to end while it ran, and
    that it did not die of another signal.
    """

    rank: int
    local_rank: int
    pid: int
    status: int
    note: Note | None
    tail: tuple[str, ...]
    failed: bool
    at: float
    stopped_by_agent: bool = False

    @property
    def only_stopped(self) -> bool:
        """Whether it failed only because the agent ended it with the round, and reported no error
        itself.
        """
        return self.failed and self.stopped_by_agent and self.note is None

    @property
    def has_succeeded(self) -> bool:
        """Whether it did all its work: a function has returned, a script was not stopped."""
        if isinstance(self.note, Returned | Refused):
            return True
        return not self.failed and not self.stopped_by_agent

    def failed_before(self, when: float) -> bool:
        """Whether it had failed by itself at ``when``. Its process's end may have been noticed
        later.
        """
        said_later = isinstance(self.note, ErrorNote) and self.at > when
        return self.failed and not self.only_stopped and not said_later

    @property
    def reason(self) -> str:
        """Why it ended, in one line of limited length: the error, or the meaning of the exit
        status.
        """
        match self.note:
            case ErrorNote(kind=kind, text=text):
                said = text.strip().partition("\n")[0]
                return printable((f"{kind}: {said}" if said else kind)[:_LONGEST_REASON])
            case Returned() if self.failed:
                return exit_text(self.status)
            case None if self.failed and self.status == 0:
                return (
                    "ended with exit code 0 but returned no value "
                    "(os._exit, or an interrupted write)"
                )
            case _:
                return exit_text(self.status)
