"""What docs/ shows of connections is what the table of backends has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llutil.backends.table import BACKENDS, backend_of_connection

ROOT = Path(__file__).parents[3]


def test_the_connections_in_the_docs_show_all_that_one_may_have() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs/gangs.md").read_text(), re.DOTALL)
    shown = [json.loads(block) for block in blocks]
    assert {one["conn_type"] for one in shown} == {
        one.connection_type for one in BACKENDS.values() if one.connection_type
    }
    for one in shown:
        backend = backend_of_connection(one["conn_type"])
        assert backend is not None
        assert one["extra"].keys() == {option.key for option in backend.connection_options}
