"""One task instance's try: its launches one after another, and what they leave on the worker's
disk.

The job is settled when this begins. Nothing here knows Airflow but its log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.execution.earlier_try import take_over
from airflow_provider.execution.worker_files import OrphanLogFile, TaskLogFolder, user_folder
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import LaunchError
from llutil.failure import FailureClass
from llutil.launcher.run_id import TaskKey
from llutil.task_link.messages import Spec
from llutil.task_link.results_file import ResultsReader

if TYPE_CHECKING:
    from airflow_provider.hooks.agent import AgentHook
    from airflow_provider.results.object_store import ResultStore
    from llutil.entrypoint import Entrypoint
    from llutil.launcher.config import LaunchConfig
    from llutil.task_link.agent_record import AgentRecord

__all__ = ["Launch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a try of the task instance ``key``, of a ``deployment`` of that name, is to run.

    ``config`` names the run. With ``id_by_attempt`` each launch after the first has an id of its
    own; a node of a larger job must not change an id that the others know.
    ``pointless`` is asked, after a launch that another one could mend, whether it could not after
    all; ``in_vain`` now and then while no worker runs: see ``AgentHook.run``. ``store`` takes what
    the ranks return, if it is to be stored. ``begin`` is told, before the first launch, what the
    agent of an earlier try has left on this host; it may raise what keeps this try from beginning.
    ``meet`` completes the configuration of each launch with where its nodes meet, and may wait for
    that; ``publish`` is told where this node hosts that, if it does. ``deployment`` tells this
    Airflow from others on the host.
    """

    config: LaunchConfig
    entrypoint: Entrypoint
    key: TaskKey
    try_number: int
    result_limit: int
    retry: LaunchRetry
    id_by_attempt: bool = False
    pointless: Callable[[], bool] = lambda: False
    in_vain: Callable[[], str | None] = lambda: None
    store: ResultStore | None = None
    begin: Callable[[AgentRecord | None, logging.Logger], None] = lambda _left, _log: None
    meet: Callable[[LaunchConfig], LaunchConfig] = lambda config: config
    publish: Callable[[str], None] = lambda _: None
    deployment: str = ""

    def run(self, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
        """Launch until it succeeds or may not be repeated; what each rank of this node returned, or
        where it is.

        :raises LaunchError: see ``AgentHook.run`` and ``ResultStore.keep``.
        """
        folder = user_folder()
        slug = self.key.slug(self.deployment)
        record_path = folder / f"{slug}.agent_record"
        left = take_over(record_path, log, stopped=lambda: hook.stopped)
        with (
            _removed(record_path),
            _orphan_log(OrphanLogFile(folder, slug), log) as orphan_log,
            _log_dir(self.config.log_dir, folder, log) as log_dir,
            ExitStack() as stack,
        ):
            self.begin(left, log)
            handover = stack.enter_context(ResultsReader(folder)) if self.store else None

            def launch(attempt: int) -> dict[int, Any]:
                config = replace(
                    self.meet(self.config), run_id=self._run_id(attempt), log_dir=log_dir
                )
                spec = Spec(
                    config=config,
                    entrypoint=self.entrypoint,
                    result_limit=self.result_limit,
                    orphan_log=orphan_log,
                    arrays=self.store is not None and self.store.arrays,
                    agent_record=str(record_path),
                    launch=str(self.try_number),
                )
                log.info("launching %s as %s", self.entrypoint.name, config.run_id)
                if handover is not None:
                    handover.clear()
                return hook.run(
                    spec,
                    results=None if handover is None else handover.fd,
                    on_store=self.publish,
                    in_vain=self.in_vain,
                )

            results = self.retry.run(
                launch,
                stopped=lambda: hook.stopped or self.pointless(),
                say=log.warning,
                sleep=hook.sleep,
            )
            if self.store is None or handover is None:
                return results
            # No launch is repeated for what fails from here on: the job has succeeded.
            return self.store.keep(
                results,
                handover,
                self.key,
                retry=self.retry,
                stopped=lambda: hook.stopped,
                sleep=hook.sleep,
                log=log,
                rescue=folder / f"{self.key.slug()}.results",
            )

    def _run_id(self, attempt: int) -> str:
        if self.id_by_attempt:
            return self.key.rendezvous_id(self.try_number, attempt)
        return self.config.run_id


@contextmanager
def _removed(record_path: Path) -> Iterator[None]:
    """Remove what an agent has left, once its task knows how its job ended; and a piece that was
    not finished.
    """
    try:
        yield
    finally:
        for path in record_path.parent.glob(f"{record_path.name}*"):
            path.unlink(missing_ok=True)


@contextmanager
def _orphan_log(orphan_log: OrphanLogFile, log: logging.Logger) -> Iterator[str]:
    """The orphan_log's path. Shows what the last try's agent has left, and what it left while this
    try ran.
    """

    def show() -> None:
        lines = orphan_log.take()
        if lines:
            log.warning("the previous try's agent printed after its task had gone:")
        for line in lines:
            log.info("[previous try] %s", line)

    show()
    yield str(orphan_log.path)
    show()
    orphan_log.remove()


@contextmanager
def _log_dir(
    given: str | os.PathLike[str] | None, folder: Path, log: logging.Logger
) -> Iterator[str]:
    """The folder of the ranks' log files: the user's, or one of ours, removed unless it explains a
    failure.
    """
    if given is not None:
        yield os.fspath(given)
        return
    ours = TaskLogFolder(folder)
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
