"""``Std``: which of a worker's standard streams an option means; and how a log has their lines.

The values are those of ``torch.distributed.elastic.multiprocessing.Std``, so that each can be made
from the other's number. This copy exists so that a configuration can be written without torch.
This module may import only the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

__all__ = [
    "ALL_RANKS",
    "AUTO_RANKS",
    "COMPLETE",
    "FEW_RANKS",
    "FOLDED",
    "LOG_LINES",
    "SEPARATE",
    "Std",
    "StdOption",
    "std_for",
]

FOLDED, SEPARATE, COMPLETE = LOG_LINES = "folded", "separate", "complete"
"""How an Airflow task's log has the lines of ranks; see ``LaunchConfig.log_lines``."""

AUTO_RANKS, ALL_RANKS = "auto", "all"
"""What ``LaunchConfig.local_ranks_filter`` may be beside a set of local ranks."""

FEW_RANKS = 8
"""With "auto", a job of more ranks shows rank 0 alone."""


class Std(IntFlag):
    """Standard output, standard error, both or none."""

    NONE = 0
    OUT = 1
    ERR = 2
    ALL = OUT | ERR


StdOption = Std | Mapping[int, Std]
"""One ``Std`` for every worker, or one for each local rank; a missing rank means ``Std.NONE``."""


def std_for(option: StdOption, local_rank: int) -> Std:
    """The streams that ``option`` names for one local rank. torch's own ``Std`` is accepted too."""
    value = option.get(local_rank, Std.NONE) if isinstance(option, Mapping) else option
    return Std(int(value))
