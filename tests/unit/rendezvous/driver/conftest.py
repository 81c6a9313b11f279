"""A rendezvous in memory; after each test no thread and no descriptor is left."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.memory_rendezvous import MemoryRendezvous


@pytest.fixture
def rendezvous() -> Iterator[MemoryRendezvous]:
    gc.collect()  # what earlier tests left for the collector may hold descriptors
    threads, descriptors = set(threading.enumerate()), _descriptors()
    with MemoryRendezvous().open() as rendezvous:
        yield rendezvous
    assert set(threading.enumerate()) == threads
    assert _descriptors() == descriptors


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
