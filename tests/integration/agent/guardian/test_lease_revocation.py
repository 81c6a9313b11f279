"""What a guardian does for a node whose agent was killed: end its workers first, and then its
lease.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian.client import Guardian
from llutil.backends.endpoints import Endpoint
from llutil.ledgers.etcd import http_revocation
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.system.process_table import stat_of
from tests.support.forks import fork
from tests.support.launches import is_alive, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.fault]

SECRET = "open sesame"
LEASE = 7587872654321


@dataclass
class Etcd:
    """A stand-in for etcd's JSON calls, which remembers what it was asked, and what was alive at
    that moment.
    """

    endpoint: Endpoint
    folder: Path
    asked: list[tuple[str, dict[str, str], str | None]] = field(default_factory=list)
    alive: list[bool] = field(default_factory=list)

    def hear(self, path: str, body: dict[str, str], token: str | None) -> dict[str, str]:
        worker = self.folder / "worker"
        self.alive.append(worker.exists() and is_alive(int(worker.read_text())))
        self.asked.append((path, body, token))  # last: tests wait for it
        return {"token": "a token"}

    @property
    def config(self) -> EtcdConfig:
        return EtcdConfig(endpoints=(self.endpoint,), user="ann", password=SECRET)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # as etcd's: the connection stays open for the next call

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = json.dumps(here.hear(self.path, body, self.headers["Authorization"])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Etcd(Endpoint("127.0.0.1", server.server_port), tmp_path)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield here
        server.shutdown()
        thread.join()


def agent(folder: Path, config: EtcdConfig, act: Callable[[Guardian, EventLoop], None]) -> int:
    """A forked process with a guardian, a stubborn worker and a lease, that does ``act`` and then
    waits.
    """
    pid = fork()
    if pid:
        assert wait_until((folder / "ready").exists)
        return pid
    try:
        with EventLoop() as loop:
            guardian = Guardian("a mark", loop)
            worker = subprocess.Popen(
                ["/bin/sh", "-c", "trap '' TERM; sleep 60"], start_new_session=True
            )
            (folder / "worker").write_text(str(worker.pid))
            stat = stat_of(worker.pid)
            guardian.watch(worker.pid, stat.start if stat else 0)
            guardian.set_revocation(http_revocation.revocation(config, LEASE))
            (folder / "guardian").write_text(str(guardian.pid))
            act(guardian, loop)
            (folder / "ready").touch()
            signal.pause()
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def nothing(_guardian: Guardian, _loop: EventLoop) -> None:
    pass


def replace(guardian: Guardian, loop: EventLoop) -> None:
    first = guardian.pid
    os.kill(first, signal.SIGKILL)
    while guardian.pid == first:
        loop.turn(float("inf"))


def say_goodbye(guardian: Guardian, _loop: EventLoop) -> None:
    guardian.close()


def leave(guardian: Guardian, _loop: EventLoop) -> None:
    guardian.set_revocation(None)


def number(path: Path) -> int:
    return int(path.read_text())


@pytest.mark.parametrize("act", [nothing, replace])
def test_a_lease_is_ended_when_the_workers_are_dead_also_by_a_guardians_successor(
    act: Callable[[Guardian, EventLoop], None], etcd: Etcd, tmp_path: Path
) -> None:
    pid = agent(tmp_path, etcd.config, act)
    assert is_alive(number(tmp_path / "worker"))
    kill(pid)
    assert wait_until(lambda: len(etcd.asked) == 2)
    assert etcd.asked == [
        ("/v3/auth/authenticate", {"name": "ann", "password": SECRET}, None),
        ("/v3/lease/revoke", {"ID": str(LEASE)}, "a token"),
    ]
    assert etcd.alive == [False, False], "peers must not go on beside a worker that still runs"


@pytest.mark.parametrize("act", [leave, say_goodbye])
def test_a_node_that_left_has_no_revocation(
    act: Callable[[Guardian, EventLoop], None], etcd: Etcd, tmp_path: Path
) -> None:
    pid = agent(tmp_path, etcd.config, act)
    guardian, worker = number(tmp_path / "guardian"), number(tmp_path / "worker")
    kill(pid)
    assert wait_until(lambda: not is_alive(guardian))
    if act is say_goodbye:  # then the worker is nobody's
        os.killpg(worker, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(worker))
    assert etcd.asked == []


def test_a_password_is_neither_in_the_guardians_arguments_nor_in_its_environment(
    etcd: Etcd, tmp_path: Path
) -> None:
    pid = agent(tmp_path, etcd.config, nothing)
    proc = Path("/proc", str(number(tmp_path / "guardian")))
    # Both are empty in the midst of execve(2).
    assert wait_until((proc / "cmdline").read_bytes)
    assert wait_until((proc / "environ").read_bytes)
    shown = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    kill(pid)
    assert wait_until(lambda: len(etcd.asked) == 2), "the guardian did know it"
    assert b"llutil.agent.guardian.main" in shown
    assert SECRET.encode() not in shown


def test_a_lease_that_cannot_be_ended_is_left_to_expire_with_a_word_about_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = EtcdConfig(endpoints=(Endpoint("127.0.0.1", 1),), user="ann", password=SECRET)
    pid = agent(tmp_path, config, nothing)
    guardian = number(tmp_path / "guardian")
    kill(pid)
    assert wait_until(lambda: not is_alive(guardian))
    said = capfd.readouterr().err
    assert "llutil's guardian: the lease of a node that was killed could not be ended" in said
    assert SECRET not in said
