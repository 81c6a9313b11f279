"""One checkpoint, committed by the ranks of a round through files in the shared store alone.

Each rank writes notes, which are files whose names say all::

    .attempts/<attempt>/<rank>-entered-<step>   it begins to write
    .attempts/<attempt>/<rank>-left             what it wrote is on disk
    .attempts/<attempt>/<rank>-failed           it could not; the content says why
    .attempts/<attempt>/<rank>-ended            its process had ended before this attempt began
    .attempts/<attempt>/committed               rank 0 has written the marker

Rank 0 writes the marker, once every rank has left. Nobody else does, so a checkpoint has one
writer, and counts from one moment on. If rank 0 dies before, the round ends, and the checkpoint
does not count; if it dies after, it counts. No clocks are compared, and no process group is needed.
The attempt's name is made from the round's and from how many attempts this rank has made in it, so
all ranks know it. This module may import the standard library, ``llutil.errors`` and its own room.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from urllib.parse import quote, unquote

from llutil.checkpoints import retention
from llutil.checkpoints.committed import ATTEMPTS, folder_name, look
from llutil.checkpoints.marker import MARKER, Checkpoint, Marker, encode
from llutil.checkpoints.place import Place
from llutil.checkpoints.store import Store
from llutil.errors import CheckpointAbandonedError, CheckpointError, CheckpointPeerError

__all__ = ["Attempt"]

_COMMITTED = "committed"
_log = logging.getLogger(__name__)


class Attempt:
    """This rank's part of the ``count``-th attempt of its round, at ``step``.

    Call ``enter``, and ``refuse`` if that raises anything; then ``leave`` or ``fail``. Errors of
    the store are ``OSError``s. ``ended`` are the ranks that are known to have ended; those that are
    found out are added. ``fence`` is among the notes until a later round of the job begins; "" if
    nothing is known to be.
    """

    def __init__(
        self,
        store: Store,
        place: Place,
        step: int,
        count: int,
        ended: set[int] | None = None,
        fence: str = "",
    ) -> None:
        self._store, self._place = store, place
        self.step = step
        self._ended = set() if ended is None else ended
        self._fence = fence
        self._name = place.attempt(count)
        self._notes = f"{ATTEMPTS}/{self._name}"
        self._folder = folder_name(step, self._name)
        self._number = 0
        self._old_notes: list[str] = []
        # What nobody needs any more, once this attempt is committed.
        self.unneeded: list[str] = []

    @property
    def path(self) -> str:
        """The folder to write into, for user code."""
        return self._store.path(self._folder)

    def enter(self) -> None:
        """Make the folder, and say so.

        :raises CheckpointError: another rank is at another step, or has failed already; or a later
            round of the job is at work.
        """
        if self._place.rank == 0:
            if self._is_left_behind():  # what it would remove now may be the later round's
                raise CheckpointAbandonedError(self._gone())
            found = look(self._store, self._place.job)
            # Greater than at the job's last success, too: somebody may have removed those of then.
            numbers = [each.number for each in found.markers.values()]
            self._number = 1 + max([found.succeeded, *numbers])
            # Removed first: they may be what fills the disk.
            retention.remove(self._store, retention.parts(found, self._name))
            # Those that are there now are of no later round than this one.
            self._old_notes = retention.notes(self._store, self._name)
        self._store.make(self._folder)
        self._store.make(self._notes)
        self._note(f"{self._place.rank}-entered-{self.step}")
        self._check(self._store.names(self._notes))

    def refuse(self, error: BaseException) -> None:
        """Say that this rank cannot enter, so that nobody waits for it."""
        with contextlib.suppress(OSError):  # then they wait until their time is over
            self._store.make(self._notes)
        self.fail(error)

    def end(self) -> None:
        """Say that this rank's process has ended, so that nobody waits for it."""
        with contextlib.suppress(OSError):  # then they wait until their time is over
            self._store.make(self._notes)
            self._note(f"{self._place.rank}-ended")

    def leave(self) -> Checkpoint:
        """Say that this rank has written all, and wait until the checkpoint is committed.

        :raises CheckpointError: it is not, because of another rank, or not in time.
        :raises OSError: the store refuses.
        """
        is_needed = True
        try:
            self._store.sync(self._folder)
            self._note(f"{self._place.rank}-left")
            is_needed = self._place.rank == 0  # the others can commit without any other rank
            self._wait()
        except (OSError, CheckpointError) as error:
            self.check_peers(error)
            self.fail(error)
            raise
        except BaseException as error:  # a signal's handler may end the process here
            if is_needed:
                self.fail(error)
            raise
        return Checkpoint(self.path, self.step, self._place.world_size)

    def fail(self, error: BaseException) -> None:
        """Say that this rank has failed, so that nobody waits for it."""
        text = f"{type(error).__name__}: {error}"
        try:
            try:
                self._note(f"{self._place.rank}-failed", text.encode(errors="replace"))
            except OSError:  # a full disk may take an empty file, whose name says it
                self._note(f"{self._place.rank}-failed-{_in_a_name(text)}")
        except OSError as refusal:
            _log.warning("the other ranks cannot be told that %s: %s", text, refusal)

    def check_peers(self, error: BaseException) -> None:
        """Check that the attempt goes on, now that ``error`` has happened to this rank in it.

        :raises CheckpointAbandonedError: the others have gone on without this rank, which may be
            why: its folder is not there any more.
        """
        with contextlib.suppress(OSError):
            if self._place.rank not in _steps(self._store.names(self._notes)):
                raise CheckpointAbandonedError(self._gone()) from error

    def has_metadata(self) -> bool:
        """Whether torch's DCP has written a file that completes a checkpoint of its own, here or in
        a folder below. Whether each of them has one is known when every rank has left.
        """
        return any(name.endswith(".metadata") for name in self._store.files(self._folder))

    def _wait(self) -> None:
        deadline = time.monotonic() + self._place.timeout
        pause, longest = self._store.poll
        while True:
            notes = set(self._store.names(self._notes))
            if _COMMITTED in notes:
                return
            self._check(notes)
            missing = self._missing(notes)
            if self._place.rank in missing:
                raise CheckpointAbandonedError(self._gone())
            if self._place.rank == 0 and not missing:
                self._commit()
                return
            if time.monotonic() >= deadline:
                raise CheckpointError(self._late(notes, missing))
            time.sleep(pause)
            pause = min(1.5 * pause, longest)

    def _commit(self) -> None:
        """Write the marker, and find out what nobody needs any more."""
        store, place = self._store, self._place
        files = store.files(self._folder)
        # Whoever removes a folder that was never committed removes its notes first. So all of the
        # files were there if all of the notes still are.
        if self._missing(store.names(self._notes)) or self._is_left_behind():
            raise CheckpointAbandonedError(self._gone())
        if halves := _without_metadata(files):
            raise CheckpointError(
                f"the checkpoint of step {self.step} does not count: torch's DCP has left no "
                f".metadata beside {halves[0]!r}, so its save has failed, or still goes on. Give "
                "what async_save returns to folder.after(...)"
            )
        marker = Marker(
            step=self.step,
            world_size=place.world_size,
            job=place.job,
            number=self._number,
            files=files,
        )
        store.put(f"{self._folder}/{MARKER}", encode(marker), durable=True)
        try:
            # Looked for now: as soon as they are told, the other ranks begin the next attempt.
            found = look(store, place.job)
            self.unneeded += retention.parts(found, self._name) + retention.old(found, place.keep)
            self.unneeded += self._old_notes
        except OSError as error:
            _log.warning("old checkpoints in %r stay: %s", store, error)
        self._note(_COMMITTED)

    def _is_left_behind(self) -> bool:
        """Whether a later round of the job has begun."""
        return bool(self._fence) and self._fence not in self._store.names(ATTEMPTS)

    def _note(self, name: str, content: bytes = b"") -> None:
        self._store.put(f"{self._notes}/{name}", content)

    def _missing(self, notes: list[str] | set[str]) -> list[int]:
        """The ranks that have not left. A rank has left if both of its notes are there: a store
        without folders takes the second one even if the first was removed.
        """
        there, entered = set(notes), _steps(notes)
        ranks = range(self._place.world_size)
        return [rank for rank in ranks if f"{rank}-left" not in there or rank not in entered]

    def _check(self, notes: list[str] | set[str]) -> None:
        """:raises CheckpointError: the ranks' steps differ, or a rank has failed."""
        steps = _steps(notes)
        if any(step != self.step for step in steps.values()):
            told = ", ".join(f"rank {rank} at step {steps[rank]}" for rank in sorted(steps))
            raise CheckpointError(
                f"the ranks entered worker.checkpoint with different steps: {told}. Every rank of "
                "the job has to enter it after the same step"
            )
        self._ended.update(int(note.partition("-")[0]) for note in notes if note.endswith("-ended"))
        if self._ended:
            raise CheckpointError(
                f"the checkpoint of step {self.step} does not count: the processes of ranks "
                f"{sorted(self._ended)} have ended, and every rank of the round has to save"
            )
        for note in sorted(notes):
            rank, _, word = note.partition("-")
            word, _, why = word.partition("-")
            if word == "failed" and rank.isdecimal() and rank != str(self._place.rank):
                why = unquote(why)
                with contextlib.suppress(OSError):
                    why = why or self._store.get(f"{self._notes}/{note}").decode(errors="replace")
                raise CheckpointPeerError(
                    f"the checkpoint of step {self.step} does not count: rank {rank} failed in it "
                    f"({why or 'it could not say why'})"
                )

    def _gone(self) -> str:
        """What to say when the notes of this attempt are not there any more."""
        return (
            f"the checkpoint of step {self.step} was removed from {self._store!r} before it was "
            "committed: the other ranks have given it up, or a later round of the job is at work"
        )

    def _late(self, notes: set[str], missing: list[int]) -> str:
        """What to say when the time is over."""
        entered = _steps(notes)
        absent = [rank for rank in missing if rank not in entered]
        inside = [rank for rank in missing if rank in entered]
        told = [f"never entered worker.checkpoint: ranks {absent}"] if absent else []
        told += [f"have not left it: ranks {inside}"] if inside else []
        told = told or ["rank 0 has not committed it"]
        return (
            f"the checkpoint of step {self.step} was not committed within "
            f"{self._place.timeout:g} s in {self._store!r}; {'; '.join(told)}"
        )


def _in_a_name(text: str) -> str:
    """The beginning of ``text`` as the last part of a note's name: of a length that a file system
    takes, and without the ``-`` that is between the parts.
    """
    return quote(text.encode(errors="replace")[:60], safe="").replace("-", "%2D")


def _without_metadata(files: Iterable[str]) -> list[str]:
    """The files of torch's DCP in whose folder there is no ``.metadata``. DCP writes that last, and
    loads nothing without it (torch 2.13).
    """
    complete = {name.rpartition("/")[0] for name in files if name.endswith(".metadata")}
    parts = (name for name in files if name.endswith(".distcp"))
    return [name for name in parts if name.rpartition("/")[0] not in complete]


def _steps(notes: list[str] | set[str]) -> dict[int, int]:
    """The step of each rank that has entered."""
    parts = [note.split("-") for note in notes if "-entered-" in note and note[0] != "."]
    return {int(rank): int(step) for rank, _, step in parts}
