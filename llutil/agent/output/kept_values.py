"""What ranks returned, written into files: for a node that cannot tell whether its job succeeded.

The files lie in the node's log folder, which is not removed at the end. This module may import
nothing but the standard library and ``llutil.agent.worker_side``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llutil.agent.worker_side.outcome_pipe import Returned

__all__ = ["keep_values"]


def keep_values(folder: Path, values: Mapping[int, Returned | None]) -> str:
    """Write each rank's value into a file in ``folder``, and say where they are, in a sentence.

    A value is JSON text or, if it came from a function of a library call, pickled by cloudpickle.
    A rank that returned nothing, such as a script, gets no file.
    """
    kept = folder / "returned"
    returned = {rank: value for rank, value in values.items() if value is not None}
    if not returned:
        return "such ranks return no values"
    try:
        kept.mkdir(exist_ok=True)
        for rank, value in returned.items():
            kind = "pickle" if value.pickled else "json"
            (kept / f"rank_{rank}.{kind}").write_bytes(value.content)
    except OSError as error:
        return f"what they returned could not be kept in {kept}: {error.strerror or error}"
    return f"what they returned is in {kept}"
