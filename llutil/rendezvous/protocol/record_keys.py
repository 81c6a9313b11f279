"""The keys under which the records of one run are stored.

::

    run.<run id>/members/<node>                           leased: who is here, in order of arrival
    run.<run id>/log/<generation>.<round>.assignment      a sealed round
    run.<run id>/log/<generation>.<round>.verdict         how it ended
    run.<run id>/log/<generation>.marker                  the generation is over
    run.<run id>/reports/<generation>.<round>/end.<node>  how a node's workers ended
    run.<run id>/reports/<generation>.<round>/back.<node> a node is ready for the next round
    run.<run id>/reports/<generation>.<round>/stop.<node> a node was asked to stop the job
    run.<run id>/reports/<generation>.<round>/wish<n>.<node>  a node's nth wish, until it is heard
    run.<run id>/log/<generation>.<round>.gate<n>         the nth time that ranks are to agree
    run.<run id>/log/<generation>.<round>.decision<n>     on which step they have
    run.<run id>/answers/<generation>.<round>.<n>/<node>  how far a node's ranks had come

A node watches the folder ``log`` and the key of one member. Only the leader watches the whole
folders of members, of reports, and of answers while a gate is open. Keys are words joined by ``/``,
as ``llutil.ledgers`` requires.

What others have written under one of these keys is left alone. The record that belongs there then
lies beside it, under a spare key: the same with ``+1`` behind it, or ``+2``, and so on. This module
may import nothing but the standard library and the room's records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, GateDecision, Wish
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
    r"(?P<generation>\d{1,18})\.((?P<round>\d{1,18})\."
    r"(assignment|verdict|(?P<of_gate>gate|decision)(?P<number>\d{1,18}))|marker)(\+\d+)?",
    re.ASCII,
)
_WISH_KEY = re.compile(
    r"(?P<generation>\d{1,18})\.(?P<round>\d{1,18})/"
    r"wish(?P<number>\d{1,18})\.(?P<node>[^/+]+)(\+\d+)?",
    re.ASCII,
)
_AFTER_ALL_ROUNDS = 10**18
_SPARE = re.compile(r"(\+[1-9]\d*)?", re.ASCII)


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

    @property
    def _all_reports(self) -> str:
        return f"{self.root}reports/"

    def reports(self, stage: Stage) -> str:
        """The folder of the reports on one round."""
        return f"{self._all_reports}{_stage_word(stage)}/"

    def answers(self, stage: Stage, number: int) -> str:
        """The folder of the answers at one gate."""
        return f"{self.root}answers/{_stage_word(stage)}.{number}/"

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
            case Wish():
                word = f"wish{record.number}.{_node_word(record.node)}"
                return self.reports(record.stage) + word
            case Gate():
                return f"{self.log}{_stage_word(record.stage)}.gate{record.number}"
            case GateDecision():
                return f"{self.log}{_stage_word(record.stage)}.decision{record.number}"
            case GateAnswer():
                return self.answers(record.stage, record.number) + _node_word(record.node)

    def spare_key(self, record: Record, spare: int) -> str:
        """Where ``record`` lies if others have taken its key and so many spare keys before this
        one; its key if ``spare`` is 0.
        """
        return f"{self.key(record)}+{spare}" if spare else self.key(record)

    def is_key_of(self, key: str, record: Record) -> bool:
        """Whether ``record`` may lie under ``key``."""
        own = self.key(record)
        return key.startswith(own) and _SPARE.fullmatch(key, len(own)) is not None

    def values(self, records: tuple[Record, ...], spare: int = 0) -> Mapping[str, bytes]:
        """Keys and values to write, in order."""
        return {self.spare_key(record, spare): encode(record) for record in records}

    def log_stage(self, key: str) -> Stage | None:
        """What a record of the log is about, as its key says: a round, or for a marker the end of
        its generation; None if it is the key of no such record.
        """
        match = _LOG_KEY.fullmatch(key.removeprefix(self.log))
        if match is None:
            return None
        return Stage(int(match["generation"]), int(match["round"] or _AFTER_ALL_ROUNDS))

    def stale(self, log_keys: Iterable[str], before: Stage) -> tuple[str, ...]:
        """The keys out of ``log_keys``, and the folders of reports, that nobody needs once the
        round ``before`` is reached.

        These are all rounds before it with their reports and gates, and all markers but the newest.
        """
        log_keys = list(log_keys)
        rounds: set[Stage] = set()
        gates = self._gates(log_keys)
        markers: list[tuple[int, str]] = []
        scopes: list[str] = []
        for key in sorted(log_keys):
            stage = self.log_stage(key)
            if stage is None:
                continue  # not ours, so not ours to delete
            if stage.round == _AFTER_ALL_ROUNDS:
                markers.append((stage.generation, key))
            elif stage < before:
                rounds.add(stage)
                scopes.append(key)
        begun = {generation for generation, _ in markers}
        newest = max(begun, default=0)
        scopes += (key for generation, key in markers if generation < newest)
        begun |= {stage.generation for stage in rounds}
        rounds |= {Stage(generation, 0) for generation in begun}
        answers = sorted({gate for gate in gates.values() if gate[0] < before})
        return (
            *scopes,
            *(self.reports(stage) for stage in sorted(rounds)),
            *(self.answers(stage, number) for stage, number in answers),
        )

    def is_wish_key(self, key: str) -> bool:
        """Whether ``key`` is that of a wish, as far as the key says."""
        return _WISH_KEY.fullmatch(key.removeprefix(self._all_reports)) is not None

    def stale_gates(
        self,
        keys: Iterable[str],
        stage: Stage,
        number: int,
        kept: int,
        heard: Iterable[tuple[str, int]],
    ) -> tuple[str, ...]:
        """The keys out of ``keys``, which are of the log and of wishes, and the folders of answers,
        that nobody needs once the gate ``number`` of the round ``stage`` is decided.

        These are all earlier gates and decisions of the round but the decision ``kept``, all
        answers, and the wishes that are ``heard``: see ``Gate.heard``.
        """
        keys = list(keys)
        gates = self._gates(keys)
        decided = {key: n for key, (of, n) in gates.items() if of == stage and n <= number}
        needed = f"{self.log}{_stage_word(stage)}.decision{kept}"
        return (
            *sorted(
                key
                for key, n in decided.items()
                if n < number
                and not (key.startswith(needed) and _SPARE.fullmatch(key, len(needed)))
            ),
            *sorted(self._heard_wishes(keys, stage, heard)),
            *(self.answers(stage, n) for n in sorted({*decided.values(), number})),
        )

    def _heard_wishes(
        self, keys: Iterable[str], stage: Stage, heard: Iterable[tuple[str, int]]
    ) -> Iterator[str]:
        """The keys of the round's wishes among ``keys`` whose numbers are at most those of the last
        ones that are ``heard`` of their nodes.
        """
        last = {_node_word(node): number for node, number in heard}
        for key in keys:
            match = _WISH_KEY.fullmatch(key.removeprefix(self._all_reports))
            if (
                match
                and Stage(int(match["generation"]), int(match["round"])) == stage
                and int(match["number"]) <= last.get(match["node"], 0)
            ):
                yield key

    def _gates(self, log_keys: Iterable[str]) -> dict[str, tuple[Stage, int]]:
        """The keys of gates and decisions among ``log_keys``: which gate of which round it is."""
        found: dict[str, tuple[Stage, int]] = {}
        for key in log_keys:
            match = _LOG_KEY.fullmatch(key.removeprefix(self.log))
            if match and match["of_gate"]:
                stage = Stage(int(match["generation"]), int(match["round"]))
                found[key] = (stage, int(match["number"]))
        return found
