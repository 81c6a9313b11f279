"""A node's part in a rendezvous, without an agent and workers: a process that starts in a moment,
and may be killed at any. If the job's ledger is one that a node serves, it serves it as an agent
does.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llutil.backends.table import BACKENDS
from llutil.ledgers.open_ledger import ledger_opener
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member

__all__ = ["run"]

_LOOK = 0.05  # seconds between two looks for the file ``succeed``


@dataclass
class _Store:
    """A round's store that is none, but for its address."""

    host: str = "10.0.0.1"
    port: int = 20001

    def close(self) -> None:
        """Nothing is open."""


def run(
    name: str,
    folder: str,
    backend: str,
    endpoint: str,
    options: dict[str, Any],
    parameters: dict[str, Any],
) -> None:
    """Take part in the run ``job`` until it ends, and write how it did into ``NAME.end``; before
    that, how its lease is ended into ``NAME.revocation``. The workers succeed as soon as the file
    ``succeed`` is there.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(relativeCreated)d %(name)s %(levelname)s %(message)s"
    )
    member = Member(node="", name=name, host="here", address="10.0.0.1", role="worker", nproc=1)
    driver = Driver(
        ProtocolParameters(**parameters),
        member,
        RecordKeys("job"),
        ledger_opener(BACKENDS[backend], endpoint, options),
        _Store,
    )
    server = None
    if backend == "served":
        from llutil.ledgers.served.config import ServedConfig  # others' nodes need none of it
        from llutil.ledgers.served.serving_node import start_server

        (place,) = BACKENDS[backend].endpoints(endpoint)
        serves = options.get("serves")
        server = start_server(ServedConfig(endpoint=place), serves=serves, several=True)
    driver.start()
    running = revocation = None
    while True:
        driver.wait(time.monotonic() + _LOOK)
        if driver.revocation != revocation:
            revocation = driver.revocation
            text = json.dumps(revocation.to_json()) if revocation else ""
            Path(folder, f"{name}.new").write_text(text)
            Path(folder, f"{name}.new").rename(Path(folder, f"{name}.revocation"))
        for instruction in driver.take_instructions():
            match instruction:
                case do.StartWorkers(assignment=assignment):
                    running = assignment.stage
                case do.StopWorkers(stage=stage):
                    running = None
                    driver.tell(see.WorkersStopped(stage))
                case do.Finish(end=end):
                    driver.close(time.monotonic() + 10)
                    if server:
                        server.close(linger=10)
                    Path(folder, f"{name}.end").write_text(type(end).__name__)
                    return
        if running and Path(folder, "succeed").exists():
            driver.tell(see.WorkersEnded(running, None))
            running = None
