"""The note that a node of a gang leaves in XCom when it has succeeded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider.gang.xcom_values import VERSION, pull_all, value_of

__all__ = ["NOTE", "SuccessNote", "notes_of"]

NOTE = "gang"
"""The XCom of a node that has succeeded: which launch it was, and its ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessNote:
    """What a node that has succeeded tells its siblings: which launch it was, and its ranks.

    ``rerun_token`` is that of its launch. ``world_size`` is 0 if the job succeeded without the
    node.
    """

    node: int
    nodes: int
    rerun_token: str
    ranks: tuple[int, ...]
    world_size: int

    def to_json(self) -> dict[str, Any]:
        """The note as it is stored in XCom."""
        return asdict(self) | {"ranks": list(self.ranks), "version": VERSION}

    @classmethod
    def of(cls, value: Any) -> SuccessNote | None:
        """The note in an XCom value; None if the value is not a note."""
        return value_of(cls, value)


def notes_of(ti: Any, task_id: str) -> dict[int, SuccessNote]:
    """The notes of a gang's nodes, by node, in the DAG run of ``ti``."""
    notes = map(SuccessNote.of, pull_all(ti, task_id, NOTE))
    return {note.node: note for note in notes if note is not None}
