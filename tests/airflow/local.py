"""``make airflow``: a local Airflow with this repository's DAGs and its UI, until Ctrl-C.

It lives in ``.airflow/local`` and keeps its history there. The port is 8080, or a free one if that
is taken; everything listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time
from pathlib import Path

from tests.airflow.server import airflow

_ROOT = Path(__file__).parents[2]
_PORT = 8080


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As a server does: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _main() -> int:
    parser = argparse.ArgumentParser(prog="make airflow", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=_PORT, help="of the UI; %(default)s if free")
    wanted: int = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the same way as by Ctrl-C
    try:
        print("Starting Airflow, which takes half a minute ...", flush=True)
        with airflow(
            _ROOT / ".airflow" / "local",
            {"dags": _ROOT / "dags"},
            port=wanted if _free(wanted) else None,
            remove=False,
        ) as server:
            print(f"\n  {server.url}\n  user      {server.user}\n  password  {server.password}")
            print(f"\nLogs are in {server.home}. End everything with Ctrl-C.", flush=True)
            while True:
                server.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nEnded.")
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
