"""The errors with which a node ends whose rendezvous did not end well for it.

Nothing here acts. This module may import ``llutil.errors`` and the protocol's instructions.
"""

from __future__ import annotations

from llutil.errors import (
    ConfigError,
    LaunchError,
    RendezvousError,
    RendezvousTimeoutError,
    ResultError,
    ServerLostError,
    StoppedError,
)
from llutil.rendezvous.protocol import instructions as do

__all__ = ["error_of_end", "values_lost"]


def error_of_end(end: do.GaveUp | do.Refused | do.Stopped | do.Left, run: str) -> LaunchError:
    """The error for ``end``; ``run`` names the run in its text."""
    match end:
        case do.GaveUp(why=why, outcome=None, ledger_away=False):
            return RendezvousTimeoutError(f"{run}: {why}")
        case do.GaveUp(why=why, gone=gone):
            return (ServerLostError if gone else RendezvousError)(f"{run}: {why}")
        case do.Refused(why=why):
            return ConfigError(f"{run}: {why}")
        case do.Stopped(why=why) | do.Left(why=why):
            return StoppedError(f"{run} was stopped: {why}")


def values_lost(run: str, why: str) -> ResultError:
    """The error of a node that comes too late, but had ranks in the job before."""
    return ResultError(
        f"{run}: {why}. But an earlier launch of this node had ranks in that job, and ended before "
        "it could hand on what they returned. If it had the time to keep that, its log says where. "
        "To run the whole job again, start all of its nodes under another rerun token"
    )
