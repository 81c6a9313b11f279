from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from llutil.agent_server.place import listener_at, place_of
from llutil.agent_socket.folder import bound_socket
from llutil.command_line import jobs
from llutil.command_line.main import main


def test_an_agent_that_does_not_answer_is_listed_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SECONDS", 0.01)
    run_id = "test-ps-silent"
    sock, path = bound_socket(run_id)
    pid = Path(path).name.partition(".")[0]
    try:
        assert main(["ps"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["status", run_id]) == 1
    finally:
        sock.close()
        Path(path).unlink()
    (row,) = [line.split() for line in lines if line.startswith(run_id)]
    assert row == [run_id, "-", "silent", "-", "-", "-", "-", pid]
    assert f"agent {pid} of {run_id}: no answer within 0.01 s" in lines
    told = f"no agent of the run has answered: agent {pid}: no answer within 0.01 s"
    assert told in capsys.readouterr().err


def test_agent_servers_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with listener_at(place_of(sys.executable)):
            assert main(["ps"]) == 0
    line = f"agent server {os.getpid()} keeps agents ready for Airflow's tasks"
    assert line in capsys.readouterr().out.splitlines()
