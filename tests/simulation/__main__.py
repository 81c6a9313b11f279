"""Tell the story of one seed: ``python -m tests.simulation SEED [MUTANT]``."""

from __future__ import annotations

import sys

from tests.simulation.properties import Broken
from tests.simulation.schedules import play


def main(arguments: list[str]) -> int:
    """Play one seed and print what happened; 1 if a property does not hold."""
    trace: list[str] = []
    try:
        play(int(arguments[0]), trace=trace)
    except Broken as broken:
        print("\n".join(trace))
        print(broken)
        return 1
    print("\n".join(trace))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
