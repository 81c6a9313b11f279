"""What a test's child process runs: it must be importable by a fresh interpreter."""

from __future__ import annotations

import pickle

__all__ = ["message"]


def message() -> bytes:
    """A message of etcd3's, pickled."""
    from llutil.ledgers.etcd.etcd3_import import etcdrpc

    return pickle.dumps(etcdrpc.RangeRequest(key=b"from the child"))
