from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llutil.agent_socket.folder import bound_socket, connected, peer_of, remove_stale, socket_names


def bound(folder: Path, run_id: str = "run") -> socket.socket:
    return bound_socket(run_id, folder)[0]


def test_only_this_user_may_use_the_folder_and_the_socket(folder: Path) -> None:
    umask = os.umask(0)
    try:
        with bound(folder):
            (entry,) = folder.iterdir()
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600


def test_a_name_tells_the_agent_and_the_run(folder: Path) -> None:
    run_id = "train.digits-" + 128 * "x"
    with bound(folder, run_id):
        (name,) = socket_names(folder)
    assert (name.pid, name.run_id) == (os.getpid(), run_id[:48])
    assert name.may_be_of(run_id)
    assert not name.may_be_of("train.digits")


def test_two_agents_of_one_run_have_a_socket_each(folder: Path) -> None:
    with bound(folder), bound(folder):
        assert [name.run_id for name in socket_names(folder)] == ["run", "run"]


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o711])
def test_a_folder_that_others_may_use_is_refused_and_not_looked_into(
    folder: Path, mode: int
) -> None:
    with bound(folder):
        folder.chmod(mode)
        with pytest.raises(OSError, match=r"others may use .*chmod 700"):
            bound_socket("run", folder)
        assert not socket_names(folder)
        folder.chmod(0o700)


def test_a_folder_of_another_user_is_refused_and_not_looked_into(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bound(folder):
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(OSError, match=f"belongs to user {own}, not to {own + 1}"):
            bound_socket("run", folder)
        assert not socket_names(folder)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_refused(folder: Path, kind: str) -> None:
    (folder.parent / "other").mkdir(mode=0o700)
    if kind == "file":
        folder.write_text("")
    else:
        folder.symlink_to((folder.parent / "other").absolute())
    with pytest.raises(OSError, match="is no folder; remove it"):
        bound_socket("run", folder)
    assert not socket_names(folder)


def test_the_socket_of_an_agent_that_ended_is_removed_with_the_folder(folder: Path) -> None:
    bound(folder).close()
    (name,) = socket_names(folder)
    assert connected(name.path) is None
    assert not folder.exists()


def test_only_stale_sockets_are_removed(folder: Path) -> None:
    bound(folder, "stale").close()
    with bound(folder, "living"):
        remove_stale(folder)
        assert [name.run_id for name in socket_names(folder)] == ["living"]


AGENT_WITH_A_FORK = """
import os, pathlib, sys
from llutil.agent_socket.folder import bound_socket
sock, _ = bound_socket("run", pathlib.Path(sys.argv[1]))
if os.fork() == 0:
    os.read(0, 1)
os._exit(0)
"""


def test_a_socket_that_only_a_fork_of_its_agent_holds_is_stale(folder: Path) -> None:
    command = [sys.executable, "-c", AGENT_WITH_A_FORK, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as agent:
        assert agent.wait(60) == 0
        (name,) = socket_names(folder)
        assert connected(name.path) is None
        assert not socket_names(folder)


def test_a_folder_that_vanishes_is_made_again(folder: Path) -> None:
    with bound(folder):
        (entry,) = folder.iterdir()
        entry.unlink()
        folder.rmdir()
        with bound(folder):
            assert len(socket_names(folder)) == 1


def test_the_usual_folder_is_this_users_and_lies_in_memory() -> None:
    sock, path = bound_socket("a-test-of-the-usual-folder")
    with sock:
        assert re.fullmatch(rf"/dev/shm/llutil-{os.geteuid()}/\d+\.\w{{6}}\..*", path)
        assert path in {name.path for name in socket_names()}
    assert connected(path) is None


def test_a_peer_is_known_by_the_kernel() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), os.geteuid())
