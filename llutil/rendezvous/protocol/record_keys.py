"""The keys under which the records of one run are stored.

::

    run.<run id>/members/<node>                           leased: who is here, in order of arrival
    run.<run id>/log/<generation>.<round>.assignment      a sealed round
    run.<run id>/log/<generation>.<round>.verdict         how it ended
    run.<run id>/log/<generation>.marker                  the generation is over
    run.<run id>/reports/<generation>.<round>/end.<node>  how a node's workers ended
    run.<run id>/reports/<generation>.<round>/back.<node> a node is ready for the next round
    run.<run id>/reports/<generation>.<round>/stop.<node> a node was asked to stop the job

A node watches the folder ``log`` and the key of one member. Only the leader watches the whole
folders of members and of reports. Keys are words joined by ``/``, as ``llutil.ledgers`` requires.
This module may import nothing but the standard library and the room's records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.records import (
    Assignment,
    Marker,
    Member,
    Record,
    Report,
    ReportKind,
    Stage,
    Verdict,
)

__all__ = ["RecordKeys"]

_LOG_KEY = re.compile(
    r"(?P<generation>\d+)\.((?P<round>\d+)\.(assignment|verdict)|marker)", re.ASCII
)


def _stage_word(stage: Stage) -> str:
    return f"{stage.generation:06}.{stage.round:06}"


def _node_word(node: str) -> str:
    return quote(node, safe="")


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The keys of the run ``run_id``. It may be any text: characters that a key cannot hold are
    percent-encoded.
    """

    run_id: str

    @property
    def root(self) -> str:
        """What every key of the run begins with."""
        return f"run.{quote(self.run_id, safe='')}/"

    @property
    def members(self) -> str:
        """The folder of the member records."""
        return f"{self.root}members/"

    @property
    def log(self) -> str:
        """The folder of assignments, verdicts and markers."""
        return f"{self.root}log/"

    def reports(self, stage: Stage) -> str:
        """The folder of the reports on one round."""
        return f"{self.root}reports/{_stage_word(stage)}/"

    def name(self, node: str) -> str:
        """The last word of a member's key (a store may add a suffix of its own)."""
        return _node_word(node)

    def key(self, record: Record) -> str:
        """The key of ``record``."""
        match record:
            case Member():
                return self.members + self.name(record.node)
            case Assignment():
                return f"{self.log}{_stage_word(record.stage)}.assignment"
            case Verdict():
                return f"{self.log}{_stage_word(record.stage)}.verdict"
            case Marker():
                return f"{self.log}{record.generation:06}.marker"
            case Report():
                slot = (
                    "end"
                    if record.say in (ReportKind.SUCCEEDED, ReportKind.FAILED)
                    else record.say.value
                )
                return f"{self.reports(record.stage)}{slot}.{_node_word(record.node)}"

    def values(self, records: tuple[Record, ...]) -> Mapping[str, bytes]:
        """Keys and values to write, in order."""
        return {self.key(record): encode(record) for record in records}

    def stale(self, log_keys: Iterable[str], before: Stage) -> tuple[str, ...]:
        """The keys out of ``log_keys``, and the folders of reports, that nobody needs once the
        round ``before`` is reached.

        These are all rounds before it with their reports, and all markers but the newest.
        """
        rounds: set[Stage] = set()
        markers: list[tuple[int, str]] = []
        scopes: list[str] = []
        for key in sorted(log_keys):
            match = _LOG_KEY.fullmatch(key.removeprefix(self.log))
            if match is None:
                continue  # not ours, so not ours to delete
            generation, round_ = int(match["generation"]), match["round"]
            if round_ is None:
                markers.append((generation, key))
            elif (stage := Stage(generation, int(round_))) < before:
                rounds.add(stage)
                scopes.append(key)
        scopes += (key for _, key in sorted(markers)[:-1])
        begun = {generation for generation, _ in markers} | {stage.generation for stage in rounds}
        rounds |= {Stage(generation, 0) for generation in begun}
        return (*scopes, *(self.reports(stage) for stage in sorted(rounds)))
