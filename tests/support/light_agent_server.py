"""An agent server without torch, for tests: its agents execute the variable ``RUN``.

    python -u tests/support/light_agent_server.py SOCKET --idle SECONDS

It imports the modules that ``PYTHONSTARTUP`` names, and nothing else: a server has that variable of
its task, and Python reads it on a terminal alone.
"""

from __future__ import annotations

import importlib
import os
import sys

from llutil.agent_server.main import main

__all__: list[str] = []


def _import_ahead() -> None:
    for name in filter(None, os.environ.get("PYTHONSTARTUP", "").split(",")):
        importlib.import_module(name)


def _run() -> int:
    exec(os.environ["RUN"], sys.modules["__main__"].__dict__)
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, which -m and -c have not
    main(sys.argv[1:], _import_ahead, _run)
