"""The options of log files, from the fields of a ``LaunchConfig`` about output."""

from __future__ import annotations

from llutil.agent.output.log_files import LogOptions
from llutil.launcher.config import LaunchConfig
from llutil.std import AUTO_RANKS

__all__ = ["log_options"]


def log_options(config: LaunchConfig) -> LogOptions:
    """The options of the log files of a job of ``config``, which was checked."""
    shown = config.local_ranks_filter or ()
    return LogOptions(
        base=config.log_dir,
        redirects=config.redirects,
        tee=config.tee,
        ranks_shown=frozenset(() if isinstance(shown, str) else shown),
        wanted_stdout=tuple(config.duplicate_stdout_filters or ()),
        wanted_stderr=tuple(config.duplicate_stderr_filters or ()),
        many_to_files=shown == AUTO_RANKS,
    )
