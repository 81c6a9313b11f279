"""What ranks do that save for as long as a test wants."""

from __future__ import annotations

import signal
import sys
import time
from typing import NoReturn

from tests.support.worker_functions import announce, wait_until_told

__all__ = ["save_until_told"]


def save_until_told(folder: str) -> None:
    """Once asked to stop, save until told that it is enough, and then end."""

    def save(*_: object) -> NoReturn:
        wait_until_told(folder)
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    announce(folder)
    time.sleep(60)
