"""The protocol's files import nothing that could do anything: no clock, store, thread, randomness
or torch.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from llutil.rendezvous import protocol

ROOM = Path(protocol.__file__).parent
PURE = sorted(file.stem for file in ROOM.glob("[!_]*.py"))
ALLOWED = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "ipaddress",
    "json",
    "msgspec",
    "operator",
    "re",
    "typing",
    "urllib.parse",
    "llutil.errors",
    "llutil.failure",
    "llutil.time_budgets",
    *(f"llutil.rendezvous.protocol.{name}" for name in PURE),
}


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                names.add(node.module or "")
            case _:
                pass
    return names


@pytest.mark.parametrize("name", PURE)
def test_a_file_of_the_protocol_imports_only_plain_values(name: str) -> None:
    assert _imported(ROOM / f"{name}.py") <= ALLOWED


def test_importing_the_machine_imports_no_torch_and_no_client_library() -> None:
    code = "import sys, llutil.rendezvous.protocol.machine; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "grpc",
        "etcd3",
        "kazoo",
        "airflow",
        "threading",
        "socket",
        "random",
        "logging",
    }
    assert not heavy & set(run.stdout.split())
