"""Where a rank's output goes: log files by attempt and local rank, and whether the console sees it.

The layout is torch's: ``<log_dir>/<run id>_<random>/attempt_<n>/<local
rank>/{stdout.log,stderr.log,error.json}``. This module makes folders and opens files; it moves no
output itself. It may import nothing but the standard library, ``llutil.errors``,
``llutil.system.line_splitter`` and ``llutil.std``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llutil.errors import ConfigError
from llutil.std import Std, StdOption, std_for
from llutil.system.line_splitter import LineSplitter

__all__ = ["LogFolder", "LogPlan", "Route", "last_lines", "open_log"]

_END = 16 * 1024  # bytes of a log file's end that are looked at


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What the configuration says of logs: base folder (None: a temporary one), ``redirects`` and
    ``tee``.

    ``shown`` holds the local ranks whose output may reach the console; empty: all. It takes nothing
    from the files.
    """

    base: str | os.PathLike[str] | None = None
    redirects: StdOption = Std.NONE
    tee: StdOption = Std.NONE
    shown: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """Where one stream of one rank goes: into ``file``, if any, and to the console or not; maybe
    nowhere.
    """

    file: Path | None
    console: bool


class LogFolder:
    """The log folder of one run on one node.

    :raises ConfigError: the base folder cannot be made or written.
    """

    def __init__(self, plan: LogPlan, run_id: str) -> None:
        self._plan = plan
        base = plan.base
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
        """The folder of one start of one rank; made if need be."""
        folder = self.path / f"attempt_{number}" / str(local_rank)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def routes(self, folder: Path, local_rank: int) -> tuple[Route, Route]:
        """Where standard output and standard error of a rank go.

        As with torch 2.13: what is redirected is not on the console unless it is teed too, and what
        is teed is in a file too.
        """
        shown = not self._plan.shown or local_rank in self._plan.shown
        redirects = std_for(self._plan.redirects, local_rank)
        tee = std_for(self._plan.tee, local_rank)

        def route(stream: Std, name: str) -> Route:
            to_file = stream in (redirects | tee)
            return Route(
                folder / name if to_file else None, shown and (not to_file or stream in tee)
            )

        return route(Std.OUT, "stdout.log"), route(Std.ERR, "stderr.log")


def open_log(path: Path) -> int:
    """A descriptor to append to ``path``; appending, so that a worker's children do not overwrite
    its lines.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def last_lines(path: Path, most: int) -> tuple[str, ...]:
    """The last lines of a log file, as far as its last 16 KiB hold them; none if it cannot be
    read.
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
