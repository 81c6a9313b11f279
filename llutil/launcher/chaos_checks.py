"""Finds what is wrong with the faults of a ``LaunchConfig``.

This module may import only the standard library, ``llutil.backends``, ``llutil.chaos``,
``llutil.errors`` and the room's values: parsing a DAG runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llutil.backends.table import backend_named
from llutil.chaos.by_seed import MOST_FAULTS
from llutil.chaos.fault_texts import faults_in
from llutil.chaos.faults import FIELD, Cut, Fault, Preempt
from llutil.errors import ConfigError, Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.output_checks import is_count

__all__ = ["chaos_problems"]


# ``config`` is taken as ``Any`` since its field is checked for its type.


def chaos_problems(config: Any) -> Iterator[Problem]:
    """What is wrong with ``chaos``."""
    texts = config.chaos
    if not isinstance(texts, tuple) or not all(isinstance(one, str) for one in texts):
        text = f"is {texts!r}; wanted a list of faults, as in [kill(rank=1, step=5)], or of texts"
        yield Problem(FIELD, text)
        return
    faults: list[Fault] = []
    for one in texts:
        try:
            faults += faults_in(one)
        except ConfigError as error:
            yield from error.problems
    if len(faults) > MOST_FAULTS:
        yield Problem(FIELD, f"has {len(faults)} faults; wanted at most {MOST_FAULTS}")
        return
    for fault in dict.fromkeys(faults):
        yield from _who(fault, config)
    if cuts := [one for one in faults if isinstance(one, Cut)]:
        yield from _store(cuts[0], config)


def _who(fault: Fault, config: LaunchConfig) -> Iterator[Problem]:
    """Whether there is ever such a rank or node."""
    nodes, nproc = config.max_nodes, config.nproc_per_node
    if not is_count(nodes):
        return
    if isinstance(fault, Preempt | Cut):
        if fault.node >= nodes:
            text = f"has {fault}; wanted node 0 to {nodes - 1}, as max_nodes is {nodes}"
            yield Problem(FIELD, text, ("max_nodes",))
    elif is_count(nproc) and isinstance(nproc, int) and fault.rank >= nodes * nproc:
        ranks = nodes * nproc
        text = f"has {fault}; wanted rank 0 to {ranks - 1}: there are never more than {ranks}"
        yield Problem(FIELD, text, ("max_nodes", "nproc_per_node"))


def _store(cut: Cut, config: LaunchConfig) -> Iterator[Problem]:
    """Whether there is a store to be cut from."""
    backend = backend_named(config.rdzv_backend)
    if not config.rdzv_endpoint and config.max_nodes == 1:
        text = f"has {cut}, but this job is one node without a store; wanted an rdzv_endpoint, too"
        yield Problem(FIELD, text, ("rdzv_endpoint", "max_nodes"))
    elif backend is not None and not backend.has_ledger:
        text = (
            f"has {cut}, but with rdzv_backend {config.rdzv_backend!r} nodes meet through torch's "
            "own store, which nothing here can cut; wanted etcd, zeus-adapter or served"
        )
        yield Problem(FIELD, text, ("rdzv_backend",))
