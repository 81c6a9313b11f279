"""Runs one try of a task instance: its launches one after another, and their files on the worker's
disk.

What to run is decided before. Of Airflow this module uses only the log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.agent_client.job_listener import NOBODY, JobListener
from airflow_provider.execution.earlier_try import await_earlier_try
from airflow_provider.execution.worker_files import (
    OrphanLogFile,
    TaskLogFolder,
    kept_folder,
    user_folder,
)
from airflow_provider.results.object_store import keep_unstored
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import LaunchError, ResultError, ServerLostError
from llutil.failure import FailureClass
from llutil.launcher.os_errors import os_errors_explained
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
    """What a try of the task instance ``key`` runs.

    ``deployment`` is a name for this Airflow, which tells it from others on the host. ``config``
    has the run id. With ``id_by_attempt`` each launch after the first gets a run id of its own; a
    node of a larger job must keep the id that the others know. ``store`` takes what the ranks
    return; None leaves it to XCom.

    The others are callbacks. ``begin`` gets, before the first launch, the record that the agent of
    an earlier try has left on this host; None if there is none. What it raises ends this try.
    ``meet`` completes the configuration of each launch with the place where nodes meet; it may
    wait. ``publish`` gets the endpoint of the job's ledger, if this node serves it.
    ``retry_is_pointless`` gets the error of each launch that failed; True prevents a retry.
    ``succeeded`` gets what the ranks returned, as soon as the job has succeeded, and once more when
    that is stored. ``idle_check`` is called while no worker runs, and ``listener`` hears of the
    jobs: see ``AgentHook.run``.
    """

    config: LaunchConfig
    entrypoint: Entrypoint
    key: TaskKey
    try_number: int
    result_limit: int
    retry: LaunchRetry
    id_by_attempt: bool = False
    retry_is_pointless: Callable[[LaunchError], bool] = lambda _: False
    idle_check: Callable[[float], str | LaunchError | None] = lambda _: None
    store: ResultStore | None = None
    begin: Callable[[AgentRecord | None, logging.Logger], None] = lambda _left, _log: None
    meet: Callable[[LaunchConfig], LaunchConfig] = lambda config: config
    publish: Callable[[str], None] = lambda _: None
    succeeded: Callable[[Mapping[int, Any]], None] = lambda _: None
    deployment: str = ""
    log_level: int = logging.INFO
    listener: JobListener = NOBODY

    def run(self, hook: AgentHook, log: logging.Logger) -> dict[int, Any]:
        """Launch until a launch succeeds or may not be repeated. Returns, by rank, what each rank
        of this node returned, or where it is stored.

        :raises InfrastructureError: nothing can be written to the folder for temporary files.
        :raises LaunchError: see ``AgentHook.run`` and ``ResultStore.keep``.
        """
        folder = user_folder()
        slug = self.key.slug(self.deployment)
        kept = kept_folder(self.key, self.deployment, self.try_number)
        record_path = folder / f"{slug}.agent_record"
        left = await_earlier_try(record_path, log, stopped=lambda: hook.stopped)
        with (
            _record_removed(record_path),
            _orphan_log_shown(OrphanLogFile(folder, slug), log) as orphan_log,
            _log_dir(self.config.log_dir, folder, log) as log_dir,
            ExitStack() as stack,
        ):
            self.begin(left, log)
            handover: ResultsReader | None = None
            unstored: dict[int, Any] = {}
            if self.store is not None:
                with os_errors_explained():
                    handover = stack.enter_context(ResultsReader(folder))
                # An alarm may end the task before values are stored, and the file ends with it.
                stack.callback(keep_unstored, unstored, handover, kept, log)

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
                    kept_folder=str(kept),
                    log_level=self.log_level,
                    agent_record=str(record_path),
                    launch=str(self.try_number),
                )
                log.info("launching %s as %s", self.entrypoint.name, config.run_id)
                if handover is not None:
                    handover.clear()
                try:
                    return hook.run(
                        spec,
                        results=None if handover is None else handover.fd,
                        on_ledger=self.publish,
                        listener=self.listener,
                        idle_check=self.idle_check,
                    )
                finally:  # also if an alarm has ended the hook's run
                    if hook.returned is not None:
                        self.succeeded(hook.returned)
                        unstored.update(hook.returned)

            def stored(results: Mapping[int, Any]) -> dict[int, Any]:
                if self.store is None or handover is None:
                    return dict(results)
                unstored.clear()  # ``keep`` sees to them, however it ends
                kept_results = self.store.keep(
                    results,
                    handover,
                    self.key,
                    retry=self.retry,
                    stopped=lambda: hook.stopped,
                    sleep=hook.sleep,
                    log=log,
                    kept_folder=kept,
                )
                self.succeeded(kept_results)
                return kept_results

            try:
                results = self.retry.run(
                    launch,
                    stopped=lambda: hook.stopped,
                    is_pointless=self.retry_is_pointless,
                    # Ranks ran until the node that served the ledger had to go.
                    counts=lambda error: (
                        not (isinstance(error, ServerLostError) and hook.world_size)
                    ),
                    say=log.warning,
                    sleep=hook.sleep,
                )
            except LaunchError as error:
                copies = [] if self.store is None else self.store.copy_kept(kept, self.key)
                if isinstance(error, ResultError):
                    raise _with_others(error, copies, stored) from None
                for copy in copies:  # nobody can say whether the job has succeeded
                    log.warning("%s", copy)
                raise
            # The job has succeeded: errors from here on do not repeat the launch.
            return stored(results)

    def _run_id(self, attempt: int) -> str:
        if self.id_by_attempt:
            return self.key.rendezvous_id(self.try_number, attempt)
        return self.config.run_id


def _with_others(
    error: ResultError,
    copies: Iterable[str],
    stored: Callable[[Mapping[int, Any]], dict[int, Any]],
) -> ResultError:
    """``error``, with where ``copies`` are; the other ranks' values are ``stored``."""
    lines = [str(error), *copies]
    try:
        results: Mapping[int, Any] = stored(error.results)
    except ResultError as others:
        lines.append(str(others))
        results = others.results
    told = ResultError("\n".join(lines))
    told.results = results
    return told


@contextmanager
def _record_removed(record_path: Path) -> Iterator[None]:
    """Remove the agent's record when the task knows how its job ended, and unfinished copies of
    it.
    """
    try:
        yield
    finally:
        for path in record_path.parent.glob(f"{record_path.name}*"):
            path.unlink(missing_ok=True)


@contextmanager
def _orphan_log_shown(orphan_log: OrphanLogFile, log: logging.Logger) -> Iterator[str]:
    """The orphan log's path. Shows what the last try's agent has written there, before this try and
    while it runs.
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
    """The folder of the ranks' log files: the user's, or a temporary one.

    The temporary one is removed after success, and after a bad configuration, whose error says all.
    After another failure it stays if its files hold anything.
    """
    if given is not None:
        yield os.fspath(given)
        return
    with os_errors_explained():
        temporary = TaskLogFolder(folder)
    try:
        yield str(temporary.path)
    except BaseException as error:
        if _is_bad_configuration(error):
            temporary.remove()
        elif temporary.keep_if_used():
            # Without a traceback: the error has it.
            log.error("the ranks' log files are kept in %s", temporary.path)  # noqa: TRY400
        raise
    temporary.remove()


def _is_bad_configuration(error: BaseException) -> bool:
    return isinstance(error, LaunchError) and error.failure_class is FailureClass.BAD_CONFIGURATION
