"""The environment variable by which a rank knows that faults may strike it. It imports nothing."""

__all__ = ["CHAOS"]

CHAOS = "LLUTIL_CHAOS"
"""The faults that strike a job, as JSON: see ``llutil.chaos.rank_faults``. A launch inside a rank
does not hand it on: that is another job.
"""
