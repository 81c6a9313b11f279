"""The process of one node of a training under chaos: ``python -m llutil.testing.node ORDER``.

ORDER is a file with a pickle of an ``Order``, which the test's process has written. How the launch
ended is written beside it, as a pickle of an ``Outcome``. This module may import the launcher.
"""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path
from typing import Any

from llutil.launcher.launch_agent import launch_agent
from llutil.testing.order import Order, Outcome

__all__ = ["main"]


def main(order: Path) -> None:
    """Launch what is in the file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given: Order = pickle.loads(order.read_bytes())  # noqa: S301 - the test has written it
    sys.path[:] = given.path
    try:
        outcome = Outcome(values=_launched(given))
    except Exception as error:  # noqa: BLE001 - the test hears of it
        stopped = type(error).__name__ == "SignalException"
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome(stopped=True) if stopped else Outcome(error=text)
    part = order.with_suffix(".part")
    part.write_bytes(pickle.dumps(outcome))
    part.rename(order.with_suffix(".outcome"))


def _launched(given: Order) -> dict[int, Any]:
    entrypoint: Any = given.entrypoint  # a value that launches take, beside those that callers give
    return launch_agent(given.config, entrypoint, given.args)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
