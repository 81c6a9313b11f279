"""What an agent server leaves that could not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.agent_server.main import main
from tests.support.no_room import no_room


def _fails() -> None:
    raise ImportError("no torch")


def test_a_server_that_cannot_start_leaves_nothing_where_there_is_no_room(folder: Path) -> None:
    with no_room(), pytest.raises(ImportError, match="no torch"):
        main([str(folder / "socket.agents"), "--idle", "1"], _fails)
    assert not folder.exists()
