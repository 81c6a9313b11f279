"""What the ledger of a job says of it: its nodes, its round, how the last round ended.

It only reads: it takes no lease and writes no record, so no node notices. This module imports a
store's client, and no torch.
"""

from __future__ import annotations

import time

import msgspec

from llutil.command_line.errors import CommandError
from llutil.command_line.rendezvous import Rendezvous
from llutil.errors import LaunchError
from llutil.ledgers.open_ledger import ledger_opener
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Marker, Member
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["LedgerStatus", "NodeRecord", "read_ledger", "status_from"]

# Seconds for all reads together.
_SECONDS = 15.0


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is there or in the round that runs. ``first_rank`` is None outside the round.
    ``lives``: its lease has not ended.
    """

    name: str
    label: str
    address: str
    nproc: int
    first_rank: int | None
    lives: bool


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A whole job, as its ledger has it.

    ``state`` is "runs", "waits" (nodes are there, and no round runs), "ended", or "left" (no round
    runs, no node is there, and nobody has said how the job went). ``generation`` counts the lives
    of the job, ``round`` the rounds of this life. ``last_end`` says how the last round ended,
    ``detail`` what was last agreed on a step, ``outcome`` how the last life that is over ended.
    """

    run_id: str
    state: str
    generation: int
    round: int
    restarts: int
    world_size: int
    nodes: tuple[NodeRecord, ...]
    last_end: str
    detail: str
    outcome: str


def read_ledger(run_id: str, place: Rendezvous) -> LedgerStatus:
    """The job ``run_id`` in the store at ``place``.

    :raises CommandError: the store cannot be read, or knows no such job.
    """
    keys = RecordKeys(run_id)
    try:
        opener = ledger_opener(place.backend, place.endpoint, place.options, run_id=run_id)
        deadline = time.monotonic() + _SECONDS
        ledger = opener(lambda: None)
        try:
            members = ledger.read(keys.members, deadline=deadline)
            log = ledger.read(keys.log, deadline=deadline)
            name = str(ledger)
        finally:
            ledger.close()
    except LaunchError as error:
        raise CommandError(str(error)) from error
    reader = RecordReader(keys)
    found = status_from(run_id, reader.read_members(members), reader.read_history(log))
    if found is None:
        raise CommandError(
            f"{name} knows no run {run_id!r}: check the run id, --rdzv-backend and the namespace "
            "in --rdzv-conf. What a run leaves there is kept for a day"
        )
    return found


def status_from(
    run_id: str, members: tuple[Member, ...], history: RunHistory
) -> LedgerStatus | None:
    """What these records say; None if there are none."""
    last = history.running or history.last
    marker, verdict = history.marker, history.verdict
    if not members and history.assignment is None and marker is None:
        return None
    over = history.last is None and marker is not None
    if history.running is not None:
        state = "runs"
    elif members:
        state = "waits"
    else:
        state = "ended" if over else "left"
    return LedgerStatus(
        run_id=run_id,
        state=state,
        generation=history.closed if state == "ended" else history.generation,
        round=marker.round if state == "ended" and marker else history.stage.round,
        restarts=last.restarts if last else 0,
        world_size=sum(seat.nproc for seat in history.running.seats) if history.running else 0,
        nodes=_nodes(members, history),
        last_end=f"{verdict.stage}: {_why(verdict.cause, verdict.why)}" if verdict else "",
        detail=_detail(history),
        outcome=_outcome(marker, ended=state == "ended") if over and marker else "",
    )


def _nodes(members: tuple[Member, ...], history: RunHistory) -> tuple[NodeRecord, ...]:
    """Those of the round that runs, in the order of their ranks; then those that wait."""
    living = {member.node for member in members}
    found, first = [], 0
    seats = history.running.seats if history.running else ()
    for seat in seats:
        found.append(
            NodeRecord(
                name=seat.name,
                label=seat.label,
                address=seat.address,
                nproc=seat.nproc,
                first_rank=first,
                lives=seat.node in living,
            )
        )
        first += seat.nproc
    seated = {seat.node for seat in seats}
    found += [
        NodeRecord(
            name=member.name,
            label=member.label,
            address=member.address,
            nproc=member.nproc,
            first_rank=None,
            lives=True,
        )
        for member in members
        if member.node not in seated
    ]
    return tuple(found)


def _detail(history: RunHistory) -> str:
    """What ranks of the round that runs have last agreed on."""
    if history.running is None:
        return ""
    decided = history.gates.of(history.running.stage).agreement
    if decided is None or not decided.kinds:
        return ""
    resumed = history.gates.decision.resumed if history.gates.decision else 0
    text = f"{' and '.join(decided.kinds)} after step {decided.step}: {decided.why}"
    over = WishKind.PAUSE in decided.kinds and resumed > decided.number
    return f"{text}; resumed since" if over else text


def _outcome(marker: Marker, *, ended: bool) -> str:
    """How the newest life that is over has ended."""
    text = _why(marker.cause, marker.why)
    return text if ended else f"generation {marker.generation}: {text}"


def _why(cause: str, why: str) -> str:
    return f"{cause}: {why}" if why else str(cause)
