"""What a process has in its memory, found as somebody who reads it would find it."""

from __future__ import annotations

import gc
import re
from pathlib import Path

__all__ = ["remembers"]

_BLOCK = 1 << 24


def remembers(first: str, second: str) -> list[str]:
    """Where this process has the text of which these are the halves: "object", or a mapping's line.

    The whole text is never made here. It is looked for in objects that the collector knows, and in
    all memory that this process may write to.
    """
    half, rest = first.encode(), second.encode()
    found = ["object" for value in _texts() if value.startswith(first) and value.endswith(second)]
    maps = Path("/proc/self/maps").read_text().splitlines()
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for line in maps:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            if "rw" not in line.split()[1] or "[vvar" in line:
                continue
            for at in range(begin, end, _BLOCK):
                memory.seek(at)
                try:
                    block = memory.read(min(_BLOCK, end - at) + len(half) + len(rest))
                except OSError:  # not backed by anything
                    continue
                ends = [match.end() for match in re.finditer(re.escape(half), block)]
                found += [line for at in ends if block[at : at + len(rest)] == rest]
    return found


def _texts() -> list[str]:
    known = [value for one in gc.get_objects() for value in gc.get_referents(one)]
    return [value for value in known if issubclass(type(value), str)]
