"""What one rank saves: ``Saves`` makes the context that ``worker.checkpoint`` gives.

A save may go on after the context was left, as torch's ``async_save`` does: ``Folder.after`` takes
its future. Then a thread waits for it and commits, and the next context waits for that thread
first. This module may import the standard library, ``llutil.errors`` and its own room.
"""

from __future__ import annotations

import logging
import operator
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType

from llutil.checkpoints.attempt import Attempt
from llutil.checkpoints.folder import Folder, Future
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import place
from llutil.checkpoints.retention import Removal
from llutil.checkpoints.round_resume import fence_of_round, resume_of_round
from llutil.checkpoints.store import open_store
from llutil.checkpoints.untold_save import untold_save_problem
from llutil.errors import CheckpointError, CheckpointStoreError

__all__ = ["Save", "Saves"]

# Seconds that a process which ends waits for old checkpoints to be removed. Its agent waits for it
# as long as ``exit_timeout`` says (300 by default), and then takes it for one that hangs.
_REMOVED_AT_THE_END = 30.0
_log = logging.getLogger(__name__)


class Saves:
    """The checkpoints of this process.

    ``entered`` and ``left`` are called when a context begins and ends, and ``ended`` when its save
    is over: with its step if that is committed, else None. That may be in another thread.
    ``resumed`` is called with the step of a checkpoint that an earlier round has left.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.place = place(environment)
        self.entered: Callable[[], None] = _nothing
        self.left: Callable[[], None] = _nothing
        self.ended: Callable[[int | None], None] = _nothing
        self.resumed: Callable[[int], None] = _nothing
        self._store = open_store(self.place.folder)
        self._last: Checkpoint | None = None
        self._decided: Checkpoint | None = None
        self._is_decided = False
        self._fence = ""
        self._count = 0
        self._behind: Save | None = None
        self._ended: set[int] = set()
        self._removal = Removal()
        # Held while a context is open: another one would remove what is written into that.
        self.inside = threading.Lock()

    def save(self, step: int) -> Save:
        """The context in which this rank writes the checkpoint of ``step``.

        :raises TypeError: ``step`` is no whole number.
        :raises ValueError: it is below 0.
        """
        try:
            number = operator.index(step)
        except TypeError:
            raise TypeError(f"step is {step!r}; wanted a whole number") from None
        if number < 0:
            raise ValueError(f"step is {step!r}; wanted the number of steps that are done")
        return Save(self, number)

    def resume(self) -> Checkpoint | None:
        """What to resume from: what this round committed last, or else what rank 0 finds in the
        store when it first asks.

        :raises CheckpointError: rank 0 did not ask in time, or the store refuses.
        """
        if self._last is not None:
            return self._last
        if not self._is_decided:
            self._decided = resume_of_round(self._store, self.place)
            self._fence = fence_of_round(self._store, self.place)
            self._is_decided = True
            if self._decided is not None:
                self.resumed(self._decided.step)
        return self._decided

    def begin(self, save: Save) -> Attempt:
        """Enter the next attempt, after the one that still goes on behind."""
        # Counted before anything can fail: all ranks have to be at the same attempt.
        self._count += 1
        attempt = Attempt(self._store, self.place, save.step, self._count, self._ended, self._fence)
        try:
            if why := self._still_going_on():
                raise CheckpointError(
                    f"the checkpoint of step {save.step} cannot be begun: {why}, "
                    f"{self.place.timeout:g} s later"
                )
            attempt.enter()
        except BaseException as error:  # also what a signal's handler raises while this waits
            attempt.refuse(error)
            if isinstance(error, OSError):
                raise CheckpointStoreError(
                    f"the checkpoint of step {save.step} cannot be begun in {self._store!r}: "
                    f"{error}"
                ) from error
            raise
        return attempt

    def _still_going_on(self) -> str:
        """What goes on and does not end in time, beside which no attempt can begin; "" if nothing.

        :raises CheckpointError: the save behind has failed.
        """
        if self._behind is not None:
            try:
                if not self._behind.join(self.place.timeout):
                    return f"the one of step {self._behind.step} still goes on behind"
            except CheckpointError:
                self._behind = None
                raise
            self._behind = None
        # Looked at last: the save behind has begun it.
        if not self._removal.is_over(self.place.timeout):
            return "old checkpoints are still being removed"
        return ""

    def finish(self, attempt: Attempt) -> None:
        """Wait until the attempt is committed."""
        committed: Checkpoint | None = None
        try:
            committed = self._last = attempt.leave()
        except OSError as error:
            raise CheckpointStoreError(
                f"the checkpoint of step {attempt.step} does not count: {error}"
            ) from error
        finally:
            self.ended(None if committed is None else committed.step)
        self._removal.start(self._store, attempt.unneeded)

    def fail(self, attempt: Attempt, error: BaseException) -> None:
        """Tell the others that this rank has failed.

        :raises CheckpointAbandonedError: they have gone on without it, which may be why.
        """
        try:
            attempt.check_peers(error)
            attempt.fail(error)
        finally:
            self.ended(None)

    def end(self) -> None:
        """This process ends: the other ranks are told that it takes part in no further save.

        A process that never saved tells nobody: it may be a child of the rank.
        """
        patience = min(self.place.timeout, _REMOVED_AT_THE_END)
        if not self._removal.is_over(patience):
            _log.warning(
                "old checkpoints in %r are still being removed after %g s: what is left of them is "
                "removed by the next save, or stays",
                self._store,
                patience,
            )
        if self._count and self.place.world_size > 1:
            Attempt(self._store, self.place, 0, self._count + 1).end()

    def go_on_behind(self, save: Save) -> None:
        """Let the next attempt wait for this save."""
        self._behind = save


def _nothing(*_: object) -> None:
    """Whom nobody has told what to do."""


class Save:
    """A context with a folder to write into. See ``llutil.worker.checkpoint``."""

    def __init__(self, saves: Saves, step: int) -> None:
        self.step = step
        self._saves = saves
        self._attempt: Attempt | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Folder:
        if self._attempt is not None:
            raise RuntimeError("this checkpoint was entered before; call worker.checkpoint again")
        if not self._saves.inside.acquire(blocking=False):
            raise RuntimeError(
                f"the checkpoint of step {self.step} cannot be begun: a checkpoint is being "
                "written already: write both models into one folder"
            )
        try:
            self._saves.entered()
            self._attempt = self._saves.begin(self)
        except BaseException:
            self._close()
            raise
        self._folder = Folder(self._attempt.path)
        self._threads = set(threading.enumerate())
        return self._folder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._leave(error)
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._saves.left()
        finally:
            self._saves.inside.release()

    def _leave(self, error: BaseException | None) -> None:
        assert self._attempt is not None
        futures = self._folder.futures
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            with suppress(CheckpointError):
                self._saves.fail(self._attempt, error)
        elif error is not None:
            self._saves.fail(self._attempt, error)
            if not isinstance(error, Exception):
                # torch's DCP raises such (torch 2.13), which no "except Exception" would catch.
                raise CheckpointError(
                    f"the checkpoint of step {self.step} does not count: {error}"
                ) from error
        elif not futures or not self._goes_on_behind(self._attempt, futures):
            try:
                for future in futures:
                    future.result()
                timeout = self._saves.place.timeout
                if why := untold_save_problem(self._threads, self._attempt, timeout):
                    raise CheckpointError(f"the async_save of step {self.step} {why}")
            except BaseException as failure:  # also what a signal's handler raises meanwhile
                self._leave(failure)
                raise
            self._saves.finish(self._attempt)

    def _goes_on_behind(self, attempt: Attempt, futures: Iterable[Future]) -> bool:
        """Have a thread wait for ``futures`` and commit; False if no thread is to be had."""
        # Not a daemon: the process ends after the commit, and not in the middle of it.
        self._thread = threading.Thread(
            target=self._finish_behind, args=(attempt, futures), name="checkpoint"
        )
        self._saves.go_on_behind(self)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            return False
        return True

    def join(self, seconds: float) -> bool:
        """Wait for what goes on behind, so many seconds at most; whether it is over.

        :raises CheckpointError: it has failed.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
        if (error := self._error) is not None:
            kind = type(error) if isinstance(error, CheckpointError) else CheckpointError
            raise kind(
                f"the checkpoint of step {self.step}, which was saved behind, does not count: "
                f"{error}"
            ) from error
        return True

    def _finish_behind(self, attempt: Attempt, futures: Iterable[Future]) -> None:
        try:
            for future in futures:
                future.result()
        except BaseException as error:  # noqa: BLE001 - the next context raises it
            self._error = error
            try:
                self._saves.fail(attempt, error)
            except CheckpointError as abandoned:
                self._error = abandoned
        else:
            try:
                self._saves.finish(attempt)
            except Exception as error:  # noqa: BLE001 - the next context raises it
                self._error = error
        if self._error is not None:
            _log.warning("the checkpoint of step %d does not count: %s", self.step, self._error)
