"""Keeps on disk what the ranks of a node returned, where nobody can say whether the job succeeded.

This module may import ``worker_side.outcome_pipe`` and ``llutil.serialization``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llutil.agent.worker_side.outcome_pipe import Note, Refused, Returned
from llutil.serialization.kept_value import keep_content

__all__ = ["keep_values"]


def keep_values(notes: Mapping[int, Note | None], ranks: int, folder: Path) -> str:
    """Write what ranks of a node of so many ``ranks`` reported of their values into files in
    ``folder``. Returns which had succeeded, and where each value is, in words.
    """
    who = "all ranks" if len(notes) == ranks else ", ".join(f"rank {rank}" for rank in notes)
    known = f"{who} of this node had succeeded, and nothing is known of other nodes"
    return "\n".join([known, *_places(notes, folder)])


def _places(notes: Mapping[int, Note | None], folder: Path) -> Iterator[str]:
    for rank, note in notes.items():
        match note:
            case Returned(content=content, pickled=pickled):
                where = keep_content(content, folder, rank, pickled=pickled)
                yield f"what rank {rank} returned: {where}"
            case Refused(text=text):
                yield text
            case _:  # a script returns nothing
                pass
