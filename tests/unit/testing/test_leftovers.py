"""What a job has left behind is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llutil.agent_socket.folder import bound_socket, removed
from llutil.events.events import Events
from llutil.testing.leftovers import left_behind


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert left_behind("LLUTIL_X=none", [], tmp_path, tmp_path / "missing", 0.0) == []


def test_processes_pages_sockets_files_and_half_checkpoints_are_named(tmp_path: Path) -> None:
    mark = f"LLUTIL_X={os.getpid()}"
    temporary, checkpoints = tmp_path / "tmp", tmp_path / "job"
    (temporary / "llutil-file").mkdir(parents=True)
    (temporary / "llutil_logs_x").mkdir()
    (checkpoints / "step-4-0123456789ab").mkdir(parents=True)
    (checkpoints / ".attempts" / "0123456789ab").mkdir(parents=True)
    name, _, value = mark.partition("=")
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    process = subprocess.Popen(sleep, env={**os.environ, name: value}, stdout=subprocess.PIPE)
    sock, path = bound_socket("run")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with Events() as page:
            found = left_behind(mark, [os.getpid()], temporary, checkpoints, 0.0)
            assert f"event page {page.path}" in found
    finally:
        process.kill()
        process.communicate()
        sock.close()
        removed(path)
    assert f"process {process.pid}: " in "\n".join(found)
    assert f"socket {path}" in found
    assert f"file {temporary / 'llutil-file'}" in found
    assert f"half a checkpoint, {checkpoints / 'step-4-0123456789ab'}" in found
    assert f"a note of a save, {checkpoints / '.attempts' / '0123456789ab'}" in found
    assert not any("_logs_" in one for one in found)
    (checkpoints / "step-4-0123456789ab").rmdir()
    assert len(left_behind(mark, [os.getpid()], temporary, checkpoints, 0.0)) == 2
