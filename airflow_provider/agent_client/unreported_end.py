"""The error of a job whose agent ended without saying how the job did.

It reads nothing and decides by values. It may import only ``llutil.errors`` and ``llutil.system``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llutil.errors import AgentLostError, ConfigError, LaunchError, StoppedError
from llutil.system.exit_status import EXIT_UNKNOWN, exit_text

__all__ = ["UnreportedEnd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreportedEnd:
    """The end of the agent ``pid`` under the interpreter ``python``.

    ``said_hello`` is whether its first message came. ``stop_reason`` is why it was asked to stop,
    and ``killed_because`` why its task killed it; None if that did not happen. ``last_errors`` are
    its last lines on stderr.
    """

    pid: int
    python: str
    exit_code: int
    said_hello: bool
    stop_reason: str | None
    killed_because: str | None
    last_errors: Iterable[str]

    def error(self) -> LaunchError:
        """The error that its task raises."""
        exit_reason = exit_text(self.exit_code)
        ended = (
            f"the agent (pid {self.pid}) ended with {exit_reason}, and did not report how the job "
            "ended"
        )
        if self.stop_reason is not None:
            return StoppedError(f"stopped ({self.stop_reason}); {ended}")
        if self.killed_because is not None:
            return AgentLostError(self._with_last_lines(f"{self.killed_because}, and was killed"))
        if not self.said_hello and 0 <= self.exit_code < EXIT_UNKNOWN:
            # It exited by itself before it did anything, and will do so the next time as well.
            return ConfigError(
                self._with_last_lines(
                    f"python {self.python!r} cannot run the agent ({exit_reason}); "
                    "install airflow-provider-elastic-launch[torch] there"
                )
            )
        return AgentLostError(self._with_last_lines(ended))

    def _with_last_lines(self, text: str) -> str:
        lines = "".join(f"\n  {line}" for line in self.last_errors)
        if not lines:
            return f"{text}; it printed nothing on stderr"
        return f"{text}; its last lines on stderr:{lines}"
