"""``llutil doctor``: what would ruin a run on this host, one line each, before there is a run."""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import llutil
from llutil.agent_socket.folder import bound_socket, removed
from llutil.backends.table import SERVED, backend_of_torchrun
from llutil.checkpoints.job_environment import check_checkpoint_path
from llutil.command_line.errors import FAILED, CommandError
from llutil.command_line.jobs import as_json
from llutil.command_line.rendezvous import rendezvous_of
from llutil.command_line.screen import Cell, Screen
from llutil.errors import ConfigError, LaunchError
from llutil.launcher.asked_of_torch import NoAnswerError, asked_of_torch
from llutil.launcher.checkpoint_checks import checkpoint_problems
from llutil.launcher.config import LaunchConfig
from llutil.launcher.device_count import worker_count
from llutil.preflight.addresses import address_problems
from llutil.preflight.host import (
    Check,
    Grade,
    check_files,
    check_folder,
    check_processes,
    check_shared_memory,
    check_torch,
    installed,
    read_file_limit,
    read_process_limits,
    read_shared_memory,
)

__all__ = ["checks", "doctor"]

_COUNT = "from llutil.launcher.device_count import main; main('auto')"
_STYLES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.ERROR: "bold red"}


def doctor(given: argparse.Namespace) -> int:
    """Look, and show what was found; 1 if something would ruin a run."""
    screen = Screen()
    found = []
    for one in checks(given):
        found.append(one)
        if not given.json:
            grade = Cell(f"{one.grade:8}", _STYLES[one.grade])
            screen.row(grade, Cell(f"{one.name:12}", "bold"), Cell(one.text))
    if given.json:
        screen.raw(as_json([{"check": c.name, "grade": c.grade, "text": c.text} for c in found]))
    return FAILED if any(one.grade is Grade.ERROR for one in found) else 0


def checks(given: argparse.Namespace) -> Iterator[Check]:
    """What was found, as soon as it is."""
    yield Check(
        "llutil", Grade.OK, f"{llutil.__version__}, with Python {platform.python_version()}"
    )
    torch = check_torch(installed("torch"))
    yield torch
    ranks = 1
    if torch.grade is not Grade.ERROR:
        counted = _ranks(given.nproc_per_node)
        yield counted[0]
        ranks = counted[1]
    yield check_shared_memory(read_shared_memory())
    yield check_files(read_file_limit(), ranks)
    yield check_processes(read_process_limits(), ranks)
    yield check_folder("log files", given.log_dir or tempfile.gettempdir())
    yield _socket()
    if given.checkpoint_path:
        yield _checkpoints(given)
    yield from _rendezvous(given)


def _ranks(wanted: str) -> tuple[Check, int]:
    """How many ranks ``nproc_per_node`` means here. Torch is imported for it, in another process,
    which shows whether it can be.
    """
    name = "ranks"
    try:
        if not wanted.isdecimal():
            count = worker_count(wanted)
            return Check(name, Grade.OK, f"--nproc-per-node {wanted} is {count} here"), count
        count = int(wanted)
        devices = asked_of_torch(_COUNT) or 0
    except ConfigError as error:
        return Check(name, Grade.ERROR, str(error)), 1
    except NoAnswerError as error:
        return Check(name, Grade.ERROR, f"torch cannot be imported: {error}"), 1
    text = f"{count} are asked for, and torch sees {devices} accelerators"
    if devices and count > devices:
        text += ", so that some would share one, which NCCL refuses; ask for as many as there are"
        return Check(name, Grade.WARNING, text), count
    return Check(name, Grade.OK, text), count


def _socket() -> Check:
    try:
        sock, path = bound_socket("doctor")
    except OSError as error:
        text = f"there can be no private socket, so 'llutil ps' finds no job: {error}"
        return Check("socket", Grade.WARNING, text)
    sock.close()
    removed(path)
    return Check("socket", Grade.OK, f"in {path.rpartition('/')[0]}, this user's alone")


def _checkpoints(given: argparse.Namespace) -> Check:
    config = LaunchConfig(1, 1, 1, checkpoint_path=given.checkpoint_path)

    def look() -> None:
        if problems := [*checkpoint_problems(config)]:  # also a password, which is not to be shown
            raise ConfigError(problems)
        check_checkpoint_path(config, "")

    return _checked("checkpoints", look, f"{given.checkpoint_path} can be written")


def _checked(name: str, look: Callable[[], Any], text: str) -> Check:
    try:
        look()
    except (LaunchError, OSError) as error:
        return Check(name, Grade.ERROR, str(error))
    return Check(name, Grade.OK, text)


def _rendezvous(given: argparse.Namespace) -> Iterator[Check]:
    """The store, and this node's address for the others."""
    if not given.rdzv_endpoint:
        yield Check("store", Grade.OK, "none is asked for: a job of one node needs none")
        return
    backend = backend_of_torchrun(given.rdzv_backend)
    if backend is None or backend.has_ledger:
        try:
            place = rendezvous_of(given)
        except CommandError as error:
            yield Check("store", Grade.ERROR, str(error))
            return
        yield _store(place.backend.name, place.endpoint, dict(place.options))
        backend = place.backend
    else:
        text = f"torch's {backend.name} is at a node, which runs only while a job does"
        yield Check("store", Grade.OK, text)
    try:
        problems = address_problems(given.local_addr, backend, given.rdzv_endpoint, one_host=False)
    except (LaunchError, OSError) as error:
        problems = [f"cannot be looked at: {error}"]
    if problems:
        yield from (Check("address", Grade.WARNING, text) for text in problems)
    else:
        yield Check("address", Grade.OK, "other hosts can find this node by it")


def _store(backend: str, endpoint: str, options: dict[str, Any]) -> Check:
    from llutil.ledgers.connection_test import check_connection

    try:
        return Check("store", Grade.OK, check_connection(backend, endpoint, options))
    except LaunchError as error:
        if backend == SERVED.name:
            text = f"nobody serves a ledger there now, as before a job begins: {error}"
            return Check("store", Grade.WARNING, text)
        return Check("store", Grade.ERROR, str(error))
