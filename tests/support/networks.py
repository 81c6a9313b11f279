"""A network of hosts on this machine: network namespaces, each with one link to a bridge.

Links can be cut, silenced, made slow and lossy, and mended. What runs in a host has its own host
name, loopback interface, ports, and folders for temporary files and shared memory; process ids are
shared by all. Names and addresses are unique to each network. It needs root on Linux, with iproute2
and util-linux. All is undone at the end, also when this process is killed.

This module may import nothing but the standard library and its neighbours here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.undo import undone

__all__ = ["Host", "Network", "network"]

_ROOT = Path(__file__).parents[2]
_PREFIX = "198.18"
"""198.18.0.0/15 is for tests of networks (RFC 2544), so nobody's own addresses are there."""
_ENTER = 'echo "$0" > /proc/sys/kernel/hostname; mount --bind "$TMPDIR/../shm" /dev/shm; exec "$@"'
_NEEDED = ("ip", "unshare", "mount", "umount")


class NetworkError(Exception):
    """There can be no such network here."""


@dataclass(slots=True)
class Host:
    """One host: its name, its address, and its folder, which is a small disk of its own. Of that,
    ``tmp`` is for temporary files and ``shm`` is what it sees as /dev/shm.
    """

    name: str
    address: str
    namespace: str
    port: str
    """The bridge's end of its link."""
    folder: Path
    wire: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def command(self, argv: Sequence[str]) -> list[str]:
        """This command line, in this host. The process keeps its pid all the way."""
        return [
            *("ip", "netns", "exec", self.namespace),
            *("env", f"TMPDIR={self.folder / 'tmp'}"),
            *("unshare", "--uts", "sh", "-c", _ENTER, self.name, *argv),
        ]

    def listeners(self) -> list[str]:
        """The TCP ports that anybody listens on here, as ``/proc/net/tcp`` has them."""
        found = []
        for table in ("tcp", "tcp6"):
            argv = ["ip", "netns", "exec", self.namespace, "cat", f"/proc/net/{table}"]
            text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            rows = [line.split() for line in text.splitlines()[1:]]
            found += [row[1] for row in rows if row[3] == "0A"]
        return found


@dataclass(frozen=True, slots=True)
class Network:
    """``address`` is that of the bridge: this machine's own in the network."""

    name: str
    address: str
    hosts: dict[str, Host]

    def cut(self, host: Host) -> None:
        """Pull the plug: the link is down, and both ends see that."""
        _ip("link", "set", host.port, "down")

    def silence(self, host: Host) -> None:
        """Lose every frame from now on. Nobody sees it."""
        _ip("link", "set", host.port, "nomaster")

    def slow(self, host: Host, delay: float, loss: float, seed: int) -> None:
        """Delay each frame by so many seconds in each direction, and lose this share of them."""
        near, far = _wire_names(host)
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", near, "up", "arp", "off")
        _ip("link", "set", far, "up", "master", self.name)
        self.silence(host)
        argv = [sys.executable, "-m", "tests.support.slow_wire", host.port, near]
        host.wire = subprocess.Popen(
            [*argv, str(delay), str(loss), str(seed)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert host.wire.stdout is not None
        host.wire.stdout.readline()

    def mend(self, host: Host) -> None:
        """Make the link as good as new."""
        if host.wire is not None:
            host.wire.kill()
            host.wire.communicate()
            host.wire = None
            with suppress(subprocess.CalledProcessError):
                _ip("link", "del", _wire_names(host)[0])
        _ip("link", "set", host.port, "up", "master", self.name)


def _wire_names(host: Host) -> tuple[str, str]:
    return f"{host.port}n", f"{host.port}f"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def network(folder: Path, names: Sequence[str], size: str = "96m") -> Iterator[Network]:
    """A network of hosts of these names, for as long as the context lasts. Below ``folder`` each
    has a disk of this ``size``.

    :raises NetworkError: there cannot be one here; the text says what is missing.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        raise NetworkError(
            "network namespaces need root, and Debian's packages iproute2 and util-linux; "
            f"this is user {os.geteuid()}, and missing are: {', '.join(missing) or 'none'}"
        )
    name = f"soak{secrets.token_hex(2)}"
    subnet = f"{_PREFIX}.{_free_subnet()}"
    hosts = {
        one: Host(one, f"{subnet}.{10 + i}", f"{name}-{one}", f"{name}-{i}", folder / one)
        for i, one in enumerate(names)
    }
    with undone([*_undo(name, hosts.values())]):
        try:
            _set_up(Network(name, f"{subnet}.1", hosts), size)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode()
            raise NetworkError(f"{' '.join(error.cmd)} failed: {said}") from error
        made = Network(name, f"{subnet}.1", hosts)
        try:
            yield made
        finally:
            for host in hosts.values():
                if host.wire is not None:
                    host.wire.kill()
                    host.wire.communicate()


def _free_subnet() -> int:
    """The third byte of addresses that no interface here has."""
    taken = subprocess.run(["ip", "-4", "addr"], check=True, capture_output=True, text=True).stdout
    free = [number for number in range(256) if f" {_PREFIX}.{number}." not in taken]
    return secrets.choice(free)


def _undo(name: str, hosts: Iterable[Host]) -> Iterator[list[str]]:
    for host in hosts:
        yield ["ip", "link", "del", f"{host.port}n"]
        yield ["ip", "link", "del", host.port]
        yield ["ip", "netns", "del", host.namespace]
        yield ["umount", "--lazy", str(host.folder)]
        yield ["rm", "-r", f"/etc/netns/{host.namespace}"]
    yield ["ip", "link", "del", name]


def _set_up(made: Network, size: str) -> None:
    _ip("link", "add", made.name, "type", "bridge")
    _ip("addr", "add", f"{made.address}/24", "dev", made.name)
    _ip("link", "set", made.name, "up")
    known = "127.0.0.1 localhost\n" + "".join(
        f"{prefix}{host.address} {host.name}\n"
        for host in made.hosts.values()
        for prefix in ("", "::ffff:")
    )
    for host in made.hosts.values():
        _ip("netns", "add", host.namespace)
        etc = Path("/etc/netns", host.namespace)
        etc.mkdir(parents=True)
        (etc / "hosts").write_text(known)
        # There is no name server, and one that does not answer holds up torch's store for 10 s.
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        link = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "add", host.port, *link)
        _ip("link", "set", host.port, "up", "arp", "off", "master", made.name)
        within = ("-netns", host.namespace)
        _ip(*within, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip(*within, "link", "set", "eth0", "up")
        _ip(*within, "link", "set", "lo", "up")
        _ip(*within, "route", "add", "default", "via", made.address)
        host.folder.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(host.folder)],
            check=True,
            capture_output=True,
        )
        for inner in ("tmp", "shm"):
            (host.folder / inner).mkdir()
            (host.folder / inner).chmod(0o1777)
