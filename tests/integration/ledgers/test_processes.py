"""Ledgers of processes that fork, and of processes that end without a word."""

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
    """What a process that made this call of ``child`` printed on its standard output, and nothing
    else.
    """
    arguments = (str(store).upper(), str(server.endpoint), world.namespace, *more)
    code = f"from tests.integration.ledgers.child_process import {call}; {call}{arguments!r}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},  # gRPC has its own word on forks
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_a_forked_child_is_refused_and_may_open_its_own_while_the_parent_goes_on(
    store: Store, server: Server, world: World
) -> None:
    *children, parent = _run("forks", store, server, world, _CHILDREN)
    assert parent == "parent connected 1"
    assert children.count("child sees 1") == _CHILDREN
    refusals = [line for line in children if "was forked from it; open another one there" in line]
    assert len(refusals) == 3 * _CHILDREN


def test_a_process_that_ends_without_closing_ends_in_silence(
    store: Store, server: Server, world: World
) -> None:
    assert _run("ends", store, server, world) == ["connected"]
