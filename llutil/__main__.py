"""``python -m llutil``: the command ``llutil``; and, with the descriptors that the Airflow operator
gives, the agent process of a task; see ``llutil.command_line`` and ``llutil.agent_process``.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run one job, or the command that the command line names, and end this process."""
    if not any(word.startswith("--socket") for word in sys.argv[1:2]):
        from llutil.command_line.main import console

        console()
    from llutil.agent_process.main import main as serve

    status = serve(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is ended and told. To take torch apart would cost half a second, and where one of its
    # calls was left to itself by a stop, it would wait for that call.
    os._exit(status)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # -m puts the working directory first, where its files would hide modules of the library.
        sys.path.append(sys.path.pop(0))
    main()
