"""What some deployments of Airflow need beside Airflow: a PostgreSQL and a Redis, of Debian's
packages, on loopback.

Both keep what they have in a folder that goes with them, and let in nobody without a password. A
supervisor (see ``tests.support.server_supervisor``) owns their processes. This module may import
nothing but the standard library, the clients of both servers, and its neighbours here.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from tests.support.ports import free_ports
from tests.support.server_supervisor import SupervisedServers

__all__ = ["Services", "services"]

_ROOT = Path(__file__).parents[2]
_VERSIONS = Path("/usr/lib/postgresql")
_USER = "postgres"
_START = 60.0  # seconds for both to be ready, on a busy machine
_STOP = 10.0
_UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")  # for data of a minute


@dataclass(frozen=True, slots=True)
class Services:
    """Where they are. ``postgresql`` is an address without a scheme:
    ``//user:password@host:port/database``.
    """

    postgresql: str
    redis: str

    def database(self, name: str, like: str = "template1") -> Services:
        """The same servers, with a new database of that name: a copy of one that nobody uses."""
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        names = sql.Identifier(name), sql.Identifier(like)
        with psycopg.connect(f"postgresql:{self.postgresql}", autocommit=True) as connection:
            connection.execute(create.format(*names))
        return replace(self, postgresql=f"{self.postgresql.rpartition('/')[0]}/{name}")


def _program(name: str) -> str:
    """A program of PostgreSQL's newest version here.

    :raises FileNotFoundError: there is none.
    """
    found = sorted(_VERSIONS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise FileNotFoundError(f"no {name} under {_VERSIONS}: as root, 'make servers'")
    return str(found[-1])


def _as_postgres(folder: Path, argv: list[str]) -> list[str]:
    """``argv`` as the user who owns ``folder``; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return argv
    user = pwd.getpwnam(_USER)
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", "--reuid", _USER, "--regid", str(user.pw_gid), "--init-groups", *argv]


def _database(folder: Path, host: str, port: int, password: str) -> list[str]:
    """The command line of a PostgreSQL whose files are made here, in ``folder``."""
    folder.mkdir(mode=0o700)
    secret = folder / "password"
    secret.write_text(password)
    data = str(folder / "data")
    argv = [
        *(_program("initdb"), "--pgdata", data, "--username", "airflow", "--pwfile", str(secret)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
    ]
    done = subprocess.run(
        _as_postgres(folder, argv),
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START,
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with (folder / "data" / "pg_hba.conf").open("a") as rules:
        rules.write("host all all samenet scram-sha-256\n")  # beyond loopback
    settings = (
        *(f"port={port}", f"listen_addresses={host}", "unix_socket_directories="),
        *("max_connections=200", *_UNSAFE),
    )
    options = [word for setting in settings for word in ("-c", setting)]
    return _as_postgres(folder, [_program("postgres"), "-D", data, *options])


def _broker(folder: Path, host: str, port: int, password: str) -> list[str]:
    """The command line of a Redis that keeps everything in memory."""
    folder.mkdir(mode=0o700)
    config = folder / "redis.conf"
    config.write_text(f'bind {host}\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n')
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("no redis-server: as root, 'make servers'")
    return [program, str(config)]


@contextmanager
def services(host: str = "127.0.0.1") -> Iterator[Services]:
    """A PostgreSQL and a Redis for as long as the context lasts, ready from the start. They listen
    at the address ``host`` of this machine.

    :raises RuntimeError: one ended by itself, or was not ready in time; with its log.
    """
    home = Path(tempfile.mkdtemp(prefix="airflow-services-"))
    home.chmod(0o711)  # for PostgreSQL's user to get to its own folder
    try:
        password = secrets.token_hex(8)
        ports = free_ports(2)
        orders = SupervisedServers(
            commands={
                "postgresql": _database(home / "postgresql", host, ports[0], password),
                "redis": _broker(home / "redis", host, ports[1], password),
            },
            folder=str(home),
            grace=_STOP,
            remove=True,
        )
        supervisor = subprocess.Popen(
            orders.argv(), cwd=_ROOT, stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            found = Services(
                f"//airflow:{password}@{host}:{ports[0]}/postgres",
                f"redis://:{password}@{host}:{ports[1]}/0",
            )
            _await(home, supervisor, lambda: _answers(found))
            yield found
        finally:
            supervisor.communicate(timeout=_STOP + 60)  # closes its standard input, and waits
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _answers(found: Services) -> bool:
    try:
        psycopg.connect(f"postgresql:{found.postgresql}", connect_timeout=5).close()
        with redis.Redis.from_url(found.redis, socket_timeout=5) as client:
            return bool(client.ping())
    except (psycopg.OperationalError, redis.ConnectionError):
        return False


def _await(home: Path, supervisor: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _START
    while not ready():
        if supervisor.poll() is not None or time.monotonic() > until:
            said = "\n".join(
                f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
                for log in home.glob("*.log")
            )
            raise RuntimeError(f"no PostgreSQL and Redis in {_START:g} s:\n{said}")
        time.sleep(0.05)
