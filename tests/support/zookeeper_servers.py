"""Real ZooKeeper servers for tests: one, or an ensemble of three; on loopback, in folders that go
with them.

The program is the one of Debian's package ``zookeeper`` and a Java, which ``make test`` installs if
it can. Ticks are short (a tenth of ZooKeeper's default), so that a leader's death costs a test a
second or two, and sessions of 0.4 to 60 seconds are granted. Start servers from the main thread:
the kernel kills them when the thread that started them ends, so that a killed test run leaves none
behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from llutil.backends.endpoints import Endpoint
from tests.support.certificates import Pair
from tests.support.networks import Host
from tests.support.ports import free_ports

__all__ = [
    "ZooKeeperServer",
    "client",
    "zookeeper",
    "zookeeper_ensemble",
    "zookeeper_jars",
    "zookeeper_of",
]

_START = 60.0  # seconds for a server to be ready
_JAVA = Path("/usr/share/java")
# The manifest of the first brings the rest, but for what its network library needs for TLS.
_JARS = tuple(
    _JAVA / f"{name}.jar"
    for name in (
        "zookeeper",
        "slf4j-nop",
        "netty-codec",
        "netty-resolver",
        "netty-transport-native-unix-common",
    )
)
_JVM = (
    "-Xms32m",
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Dzookeeper.jmx.log4j.disable=true",
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.skipACL=no",
)
_MAIN = "org.apache.zookeeper.server"
_NETTY = f"-Dzookeeper.serverCnxnFactory={_MAIN}.NettyServerCnxnFactory"  # TLS needs it


def zookeeper_jars() -> str:
    """The class path of a ZooKeeper.

    :raises FileNotFoundError: there is none, or no Java.
    """
    missing = [str(path) for path in _JARS if not path.exists()]
    if shutil.which("java") is None:
        missing.append("java on the PATH")
    if missing:
        raise FileNotFoundError(
            f"no ZooKeeper: {', '.join(missing)} is missing; install Debian's package zookeeper"
        )
    return ":".join(map(str, _JARS))


class ZooKeeperServer:
    """One ZooKeeper process: alone, or ``number`` of an ensemble.

    ``tls`` is its certificate, for which clients then have to show one of ``client_ca``; ``users``
    have these passwords for SASL (DIGEST-MD5). It runs in the host ``inside`` of a network, if one
    is given.
    """

    def __init__(
        self,
        number: int = 1,
        *,
        options: Sequence[str] = (),
        tls: Pair | None = None,
        client_ca: Path | None = None,
        users: Mapping[str, str] | None = None,
        inside: Host | None = None,
    ) -> None:
        self.number = number
        self.inside = inside
        self.host = inside.address if inside else "127.0.0.1"
        self._tls = tls
        self._client_ca = client_ca
        self._users = users or {}
        self._options = tuple(options)
        self._folder = Path(tempfile.mkdtemp(prefix="llutil-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._plain, secure, peer, election = free_ports(4)
        self.port = secure if tls else self._plain
        self.peer = f"server.{number}={self.host}:{peer}:{election}"

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return Endpoint(self.host, self.port)

    @property
    def data(self) -> Path:
        """Where it keeps its snapshots and its log of transactions."""
        return self._folder / "data"

    def configure(self, peers: Sequence[str] = ()) -> None:
        """Write its configuration; ``peers`` are all members of its ensemble."""
        self.data.mkdir()
        (self.data / "myid").write_text(str(self.number))
        self._jaas.write_text(
            f"Server {{ {_MAIN}.auth.DigestLoginModule required\n"
            + "\n".join(f'user_{name}="{password}"' for name, password in self._users.items())
            + "; };\n"
        )
        lines = [
            "tickTime=200",
            "minSessionTimeout=400",
            "maxSessionTimeout=60000",
            "initLimit=50",
            "syncLimit=10",
            f"dataDir={self.data}",
            f"clientPort={self._plain}",
            f"clientPortAddress={self.host}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "maxClientCnxns=0",
            *(peers if len(peers) > 1 else ()),
            *self._secure(),
            *self._options,
        ]
        (self._folder / "zoo.cfg").write_text("\n".join(lines) + "\n")

    @property
    def _jaas(self) -> Path:
        return self._folder / "jaas.conf"

    def _secure(self) -> list[str]:
        """The lines about TLS and SASL."""
        lines = []
        if self._users:
            provider = f"{_MAIN}.auth.SASLAuthenticationProvider"
            lines.append(f"authProvider.sasl={provider}")
        if self._tls:
            pair = (
                self._folder / "server.pem"
            )  # a name that does not end so would have to be explained
            pair.write_text(self._tls.key.read_text() + self._tls.cert.read_text())
            lines += [
                f"secureClientPort={self.port}",
                f"secureClientPortAddress={self.host}",
                f"ssl.keyStore.location={pair}",
                f"ssl.clientAuth={'need' if self._client_ca else 'none'}",
                "ssl.hostnameVerification=false",  # of clients, that is
            ]
        if self._client_ca:
            trusted = self._folder / "clients.pem"
            trusted.write_bytes(self._client_ca.read_bytes())
            lines.append(f"ssl.trustStore.location={trusted}")
        return lines

    def launch(self) -> None:
        """Start it, and do not wait."""
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        several = "server." in (self._folder / "zoo.cfg").read_text()
        main = "quorum.QuorumPeerMain" if several else "ZooKeeperServerMain"
        jvm = [*_JVM, *([_NETTY] if self._tls else ())]
        if self._users:
            jvm.append(f"-Djava.security.auth.login.config={self._jaas}")
        argv = [*guard, "java", *jvm, "-cp", zookeeper_jars(), f"{_MAIN}.{main}", "zoo.cfg"]
        if self.inside:
            argv = self.inside.command(argv)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )

    def ask(self, word: str, seconds: float = 2) -> str:
        """What it says to one of its four-letter words; "" if it does not answer in time."""
        try:
            with socket.create_connection((self.host, self._plain), seconds) as sock:
                sock.sendall(word.encode())
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError:
            return ""

    def is_ready(self) -> bool:
        """Wait until it serves; False if it ended instead.

        :raises TimeoutError: it does neither in time.
        """
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if "Mode:" in self.ask("srvr"):
                return True
            time.sleep(0.02)
        raise TimeoutError(
            f"ZooKeeper {self.number} does not serve after {_START} s:\n{self.tail()}"
        )

    def start(self) -> ZooKeeperServer:
        """Start it (again, with the data it had) and wait until it serves."""
        self.launch()
        if not self.is_ready():
            raise RuntimeError(f"ZooKeeper {self.number} ended at once:\n{self.tail()}")
        return self

    def is_leader(self) -> bool:
        """Whether it leads its ensemble."""
        return "Mode: leader" in self.ask("srvr")

    def metrics(self) -> dict[str, float]:
        """Its own counts, by name."""
        pairs = (line.split("\t") for line in self.ask("mntr", _START).splitlines())
        return {
            pair[0]: float(pair[1])
            for pair in pairs
            if len(pair) == 2 and pair[1].replace(".", "", 1).isdigit()
        }

    @property
    def log(self) -> Path:
        """What it prints."""
        return self._folder / "log"

    def tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(sign)
            self._process.wait(_START)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. ``start`` brings it back."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # sent is not stopped

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

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._end(signal.SIGKILL)  # its data go anyway
        shutil.rmtree(self._folder, ignore_errors=True)


def _start(make: Callable[[], list[ZooKeeperServer]]) -> list[ZooKeeperServer]:
    """Servers that are ready; on other ports if somebody else took one of theirs first."""
    zookeeper_jars()
    for _ in range(5):
        servers = make()
        for server in servers:
            server.configure([one.peer for one in servers])
            server.launch()
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
    raise RuntimeError(f"ZooKeeper ended at once, five times:\n{story}")


@contextmanager
def zookeeper(
    *options: str,
    tls: Pair | None = None,
    client_ca: Path | None = None,
    users: Mapping[str, str] | None = None,
) -> Iterator[ZooKeeperServer]:
    """One ZooKeeper, with these further lines of configuration."""
    make = lambda: [ZooKeeperServer(options=options, tls=tls, client_ca=client_ca, users=users)]  # noqa: E731
    with ExitStack() as stack:
        (server,) = _start(make)
        stack.callback(server.stop)
        yield server


@contextmanager
def zookeeper_ensemble(inside: Sequence[Host] = ()) -> Iterator[list[ZooKeeperServer]]:
    """Three members of one ZooKeeper, in these hosts of a network, if they are given."""
    hosts = inside or (None,) * 3
    make = lambda: [ZooKeeperServer(i, inside=host) for i, host in enumerate(hosts, 1)]  # noqa: E731
    with ExitStack() as stack:
        servers = _start(make)
        for server in servers:
            stack.callback(server.stop)
        yield servers


@contextmanager
def client(server: ZooKeeperServer) -> Iterator[KazooClient]:
    """What somebody else does there, as nobody."""
    one = KazooClient(hosts=str(server.endpoint))
    one.start()
    try:
        yield one
    finally:
        one.stop()
        one.close()


def zookeeper_of(server: ZooKeeperServer, users: Mapping[str, str]) -> None:
    """Give each of these users, whose passwords these are, a folder of the same name that nobody
    else may use.
    """
    with client(server) as one:
        for name, password in users.items():
            one.create(f"/{name}", acl=[make_digest_acl(name, password, all=True)])
