"""Ledgers in processes that fork, and in processes that end without closing them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.ledger_contract import World
from tests.support.stores import STORES, Server, Store

pytestmark = pytest.mark.parametrize("store", STORES)

_CHILDREN = 3


def _run(call: str, store: Store, server: Server, world: World, *more: int) -> list[str]:
    """The lines that a process with this call of ``child_process`` printed. It printed no error."""
    arguments = (str(store).upper(), str(server.endpoint), world.namespace, *more)
    code = f"from tests.integration.ledgers.child_process import {call}; {call}{arguments!r}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},  # gRPC prints a message at a fork
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_a_forked_child_is_refused_and_may_open_its_own_ledger_while_the_parent_goes_on(
    store: Store, server: Server, world: World
) -> None:
    *children, parent = _run("use_and_fork", store, server, world, _CHILDREN)
    assert parent == "parent connected 1"
    assert children.count("child sees 1") == _CHILDREN
    refusals = [line for line in children if "was forked from it; open another one there" in line]
    assert len(refusals) == 3 * _CHILDREN


def test_a_process_that_ends_without_closing_prints_no_error(
    store: Store, server: Server, world: World
) -> None:
    assert _run("use_and_exit", store, server, world) == ["connected"]
