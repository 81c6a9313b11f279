"""One task instance's try: its launches one after another, and what they leave on the worker's disk.

The job is settled when this begins. Nothing here knows Airflow but its log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.retries import LaunchRetry
from airflow_provider.run_id import TaskKey
from airflow_provider.scratch import Afterlog, LogFolder, user_folder
from airflow_provider.settings import config_json
from airflow_provider.turn import Turn
from llutil.errors import FailureClass, LaunchError
from llutil.wire import Spec

if TYPE_CHECKING:
    from airflow_provider.hooks.agent import AgentHook
    from llutil.entrypoint import Entrypoint
    from llutil.launcher.launch_agent import LaunchConfig

__all__ = ["Launch"]

_OVERTIME = 15.0  # seconds after its grace period within which even a stuck agent has ended; see llutil.serve.process


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a try of the task instance ``key``, of a ``deployment`` of that name, is to run.

    ``config.run_id`` empty means: an id made from ``key``, ``try_number`` and, for a job of one node, the
    attempt; a node of a larger job must not change an id that the others know. ``pointless`` is asked, after a
    launch that another one could mend, whether it could not after all; ``in_vain`` now and then while no worker
    runs: see ``AgentHook.run``.
    """

    config: LaunchConfig
    entrypoint: Entrypoint
    key: TaskKey
    try_number: int
    result_limit: int
    retry: LaunchRetry
    pointless: Callable[[], bool] = lambda: False
    in_vain: Callable[[], str | None] = lambda: None
    deployment: str = ""

    def run(self, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
        """Launch until it succeeds or may not be repeated; what each rank of this node returned.

        :raises LaunchError: see ``AgentHook.run``.
        """
        folder = user_folder()
        fields = config_json(self.config)
        slug = self.key.slug(self.deployment)
        with (
            _turn(Turn(folder, slug), self.config.shutdown_timeout + _OVERTIME, hook, log) as turn,
            _afterlog(Afterlog(folder, slug), log) as afterlog,
            _log_dir(self.config.log_dir, folder, log) as log_dir,
        ):

            def launch(attempt: int) -> dict[int, Any]:
                spec = Spec(
                    config=fields | {"log_dir": log_dir, "run_id": self._run_id(attempt)},
                    entrypoint=self.entrypoint,
                    grace=self.config.shutdown_timeout,
                    result_limit=self.result_limit,
                    afterlog=afterlog,
                )
                log.info("launching %s as %s", self.entrypoint.name, spec.config["run_id"])
                return hook.run(spec, turn=turn, in_vain=self.in_vain)

            return self.retry.run(
                launch,
                stopped=lambda: hook.stopped or self.pointless(),
                say=log.warning,
                sleep=hook.sleep,
            )

    def _run_id(self, attempt: int) -> str:
        one_node = self.config.max_nodes == 1
        return self.config.run_id or self.key.rendezvous_id(
            self.try_number, attempt if one_node else 1
        )


@contextmanager
def _turn(turn: Turn, patience: float, hook: AgentHook, log: logging.Logger) -> Iterator[Turn]:
    """The turn, once no earlier try of this task instance is at work here."""
    try:
        turn.take(patience, say=log.warning, sleep=hook.sleep, stopped=lambda: hook.stopped)
        yield turn
    finally:
        turn.close()


@contextmanager
def _afterlog(afterlog: Afterlog, log: logging.Logger) -> Iterator[str]:
    """The afterlog's path. Shows what the last try's agent has left, and what it left while this try ran."""

    def show() -> None:
        lines = afterlog.take()
        if lines:
            log.warning("the previous try's agent printed after its task had gone:")
        for line in lines:
            log.info("[previous try] %s", line)

    show()
    yield str(afterlog.path)
    show()
    afterlog.remove()


@contextmanager
def _log_dir(
    given: str | os.PathLike[str] | None, folder: Path, log: logging.Logger
) -> Iterator[str]:
    """The folder of the ranks' log files: the user's, or one of ours, removed unless it explains a failure."""
    if given is not None:
        yield os.fspath(given)
        return
    ours = LogFolder(folder)
    try:
        yield str(ours.path)
    except BaseException as error:
        if _is_bad_configuration(error):
            # Its text says all there is to know. It also says where files were.
            error.args = tuple(_without(str(ours.path), text) for text in error.args)
            ours.remove()
        elif ours.keep_if_used():
            log.error("the ranks' log files are kept in %s", ours.path)  # noqa: TRY400 - no traceback here
        raise
    ours.remove()


def _is_bad_configuration(error: BaseException) -> bool:
    return isinstance(error, LaunchError) and error.failure_class is FailureClass.BAD_CONFIGURATION


def _without(words: str, text: str) -> str:
    return "\n".join(line for line in text.splitlines() if words not in line).rstrip()
