"""``python -m llutil``: the agent process that the Airflow operator starts; see ``llutil.serve``."""

from __future__ import annotations

import sys

from llutil.serve.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
