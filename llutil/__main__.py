"""``python -m llutil``: the agent process that the Airflow operator starts; see
``llutil.agent_process``.
"""

from __future__ import annotations

import os
import sys

from llutil.agent_process.main import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is ended and told. To take torch apart would cost half a second, and where one of its
    # calls was left to itself by a stop, it would wait for that call.
    os._exit(status)
