"""Puts a rank's number on its node in the place of ``${local_rank}`` in the rank's arguments.

torch does it for the arguments of functions and of programs (2.13, ``macros.substitute``). It runs
in the rank, because all ranks of a round read the same work order. This module may import only the
standard library and ``llutil.events.events``.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import Template
from typing import Any

__all__ = ["arguments_of_rank"]


def arguments_of_rank(args: Iterable[Any]) -> list[Any]:
    """``args`` as this rank gets them.

    A text that does not name ``local_rank`` stays as it is. torch would also make one ``$`` of each
    ``$$`` there, which in a shell's code is the number of its process.
    """
    return [
        _with_local_rank(arg) if isinstance(arg, str) and "local_rank" in arg else arg
        for arg in args
    ]


def _with_local_rank(arg: str) -> str:
    # With ``virtual_local_rank`` LOCAL_RANK is 0 for all; torch takes the rank's real number.
    from llutil.events.events import slot_number

    return Template(arg).safe_substitute(local_rank=slot_number())
