"""The agent server's process: ``python -m llutil.agent_server SOCKET``; see ``main``."""

from __future__ import annotations

import sys

__all__: list[str] = []

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # -m puts the working directory first. An agent must not have it there.
        sys.path.pop(0)
    from llutil.agent_server.main import main

    main(sys.argv[1:])
