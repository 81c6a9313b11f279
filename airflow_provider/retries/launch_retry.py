"""Repeats a failed launch inside the same Airflow try.

Only failures that another attempt can mend are repeated: the rendezvous store did not answer, or
the agent was lost. A failing rank, bad configuration, a stop and a timeout of the task are left to
Airflow's retries. tenacity is imported when a launch begins.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llutil.errors import ConfigError, LaunchError, Problem

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["LaunchRetry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRetry:
    """How often a launch is attempted, and how long to wait between attempts.

    :param attempts: launches in all; 1 means that none is repeated.
    :param max_elapsed: no attempt begins later than so many seconds after the first one.
    :param wait_initial: seconds before the second attempt; each further wait is twice as long.
    :param wait_max: the longest wait, in seconds, without jitter.
    :param jitter: a random number of seconds, up to this one, is added to each wait. So the nodes
        of a job that failed as a whole do not come back all at once.
    """

    attempts: int = 3
    max_elapsed: float = 600.0
    wait_initial: float = 1.0
    wait_max: float = 60.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            Problem(f"LaunchRetry.{name}", f"is {value!r}; wanted {wanted}")
            for name, value, wanted, fits in (
                ("attempts", self.attempts, "a whole number, at least 1", _is_count(self.attempts)),
                *(
                    (name, getattr(self, name), "0 or more seconds", _is_time(getattr(self, name)))
                    for name in ("max_elapsed", "wait_initial", "wait_max", "jitter")
                ),
            )
            if not fits
        ]
        if problems:
            raise ConfigError(problems)

    def run(
        self,
        launch: Callable[[int], T],
        *,
        stopped: Callable[[], bool],
        say: Callable[[str], None],
        is_pointless: Callable[[LaunchError], bool] = lambda _: False,
        counts: Callable[[LaunchError], bool] = lambda _: True,
        sleep: Callable[[float], None] = time.sleep,
        what: str = "launch",
    ) -> T:
        """Call ``launch(attempt)``, from attempt 1, until one succeeds or no other may follow.

        ``stopped`` is called before each repetition, and ``is_pointless`` with the error of the
        attempt before; True prevents it. If the error of an attempt does not count (``counts``),
        those after it are counted anew. ``say`` gets a line with the reason for each repetition;
        ``what`` is the word for an attempt in that line. The error of the last attempt is raised.
        """
        import tenacity

        def again(error: BaseException) -> bool:
            if not isinstance(error, LaunchError) or stopped() or is_pointless(error):
                return False
            return error.retryable and counts(error)

        def before_sleep(state: RetryCallState) -> None:
            assert state.outcome is not None
            assert state.next_action is not None
            say(
                f"{what} attempt {state.attempt_number} of {self.attempts} failed; the next one "
                f"follows in {state.next_action.sleep:.1f} s. {state.outcome.exception()}"
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.attempts),
                tenacity.stop_before_delay(self.max_elapsed),
            ),
            wait=tenacity.wait_exponential(multiplier=self.wait_initial, max=self.wait_max)
            + tenacity.wait_random(0, self.jitter),
            retry=tenacity.retry_if_exception(again),
            before_sleep=before_sleep,
            sleep=sleep,
            reraise=True,
        )
        attempts = itertools.count(1)
        while True:
            try:
                return retrying(lambda: launch(next(attempts)))
            except LaunchError as error:
                if counts(error) or not error.retryable or stopped() or is_pointless(error):
                    raise
                pause = self.wait_initial + self.jitter * random.random()  # noqa: S311 - jitter
                say(f"{what} follows again in {pause:.1f} s. {error}")
            sleep(pause)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
