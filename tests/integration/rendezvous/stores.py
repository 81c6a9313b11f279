"""The stores that a scenario of jobs runs on: ``pytest.mark.parametrize("store", STORES)``."""

from __future__ import annotations

import pytest

__all__ = ["STORES"]

STORES = [
    pytest.param("etcd", marks=pytest.mark.etcd),
    pytest.param("zookeeper", marks=pytest.mark.zookeeper),
]
