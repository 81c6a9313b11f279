"""What stands between markers in README and docs: tables of the report, and single figures.

A name with a dot is a figure: ``launch.later.2``, or ``launch.later.2:peer`` and ``:ratio``. Others
are tables, see ``tables``.

This module may import nothing but the standard library and its neighbours.
"""

from __future__ import annotations

from tests.bench.report.document import Document
from tests.bench.report.measurement import Measurement
from tests.bench.report.tables import TABLES
from tests.bench.report.words import amount, times

__all__ = ["block"]


def block(report: Document, name: str) -> str:
    """What has to stand between markers of that name.

    :raises KeyError: the report has no such figure, or there is no such table.
    """
    if "." in name:
        figure, _, part = name.partition(":")
        return _part(report.figure(figure), part)
    if name not in TABLES:
        raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](report)


def _part(one: Measurement, part: str) -> str:
    match part:
        case "":
            return amount(one.ours.median, one.unit)
        case "peer" if one.peer is not None:
            return amount(one.peer.median, one.unit)
        case "ratio" if one.ratio is not None:
            return times(one.ratio)
    raise KeyError(f"{one.key!r} has no {part!r}")
