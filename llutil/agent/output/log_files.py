"""Where a rank's output goes: to log files by attempt and local rank, and to the console or not.

The layout is torch's: ``<log_dir>/<run id>_<random>/attempt_<n>/<local
rank>/{stdout.log,stderr.log,error.json}``, and beside these folders ``filtered_stdout.log`` and
``filtered_stderr.log``. This module makes folders, and opens and writes files. It may import
nothing but the standard library, ``llutil.errors``, ``llutil.system.line_splitter`` and
``llutil.std``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llutil.errors import ConfigError
from llutil.std import FEW_RANKS, Std, StdOption, std_for
from llutil.system.line_splitter import LineSplitter

__all__ = ["LogFolder", "LogOptions", "Route", "last_lines", "open_log", "write_all"]

# Bytes at the end of a log file that are read for its last lines.
_END = 16 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The options of log files: base folder (None: a temporary one), ``redirects`` and ``tee``.

    ``ranks_shown`` holds the local ranks whose output may reach the console; if it is empty, all
    may. Log files have the output of every rank. Teed lines that hold one of the texts in
    ``wanted_stdout`` or ``wanted_stderr`` are also in a file of all ranks. With ``many_to_files``,
    in a job of more than 8 ranks, what is neither redirected nor teed goes into files instead of
    the console, but for rank 0.
    """

    base: str | os.PathLike[str] | None = None
    redirects: StdOption = Std.NONE
    tee: StdOption = Std.NONE
    ranks_shown: frozenset[int] = frozenset()
    wanted_stdout: tuple[str, ...] = ()
    wanted_stderr: tuple[str, ...] = ()
    many_to_files: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where one stream of one rank goes: into ``file`` if there is one, and to the console if
    ``console`` is true. It may go nowhere.

    Lines that hold one of the texts ``wanted`` are also written into the file ``filtered``.
    ``by_default`` says that it goes into the file although nobody asked for that: if the disk is
    full, the job must go on.
    """

    file: Path | None
    console: bool
    filtered: Path | None = None
    wanted: tuple[str, ...] = ()
    by_default: bool = False

    @property
    def is_direct(self) -> bool:
        """Whether the rank itself writes into the file."""
        return self.file is not None and not (self.console or self.by_default)


class LogFolder:
    """The log folder of one run on one node.

    :raises ConfigError: the base folder cannot be made or written.
    """

    def __init__(self, options: LogOptions, run_id: str) -> None:
        self._options = options
        base = options.base
        try:
            if base is None:
                base = tempfile.mkdtemp(prefix="llutil_logs_")
            else:
                Path(base).mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=f"{run_id}_", dir=base))
        except OSError as error:
            raise ConfigError(
                f"log_dir {str(base)!r} cannot be written ({error.strerror or error}); "
                "name a folder that this user may write, or leave log_dir out for a temporary one"
            ) from error

    def attempt(self, number: int, local_rank: int) -> Path:
        """The folder of one start of one rank. It is made if it is missing."""
        folder = self.path / f"attempt_{number}" / str(local_rank)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def routes(
        self, folder: Path, local_rank: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Route, Route]:
        """Where standard output and standard error of a rank go.

        As in torch 2.13: a redirected stream is not on the console unless it is teed too, and a
        teed stream is also in a file.
        """
        is_shown = not self._options.ranks_shown or local_rank in self._options.ranks_shown
        redirects = std_for(self._options.redirects, local_rank)
        tee = std_for(self._options.tee, local_rank)
        quiet = self._options.many_to_files and world_size > FEW_RANKS and rank > 0

        def route(stream: Std, name: str, wanted: tuple[str, ...]) -> Route:
            if stream not in redirects | tee:
                if quiet:
                    return Route(folder / name, console=False, by_default=True)
                return Route(None, is_shown)
            if stream not in tee or not is_shown:
                return Route(folder / name, console=False)
            filtered = folder.parent / f"filtered_{name}" if wanted else None
            return Route(folder / name, console=True, filtered=filtered, wanted=wanted)

        return (
            route(Std.OUT, "stdout.log", self._options.wanted_stdout),
            route(Std.ERR, "stderr.log", self._options.wanted_stderr),
        )


def open_log(path: Path) -> int:
    """A descriptor that appends to ``path``. With appending, a worker's children do not overwrite
    its lines.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``: where the disk is nearly full, the kernel takes a part of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def last_lines(path: Path, most: int) -> tuple[str, ...]:
    """The last lines of a log file, as far as its last 16 KiB hold them. Empty if it cannot
    be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            data = file.read(_END)
    except OSError:
        return ()
    splitter = LineSplitter()
    lines = [*splitter.feed(data, 0.0), *splitter.finish()]
    return tuple(lines[-most:] if size <= _END else lines[1:][-most:])
