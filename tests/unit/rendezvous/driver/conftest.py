"""A rendezvous in memory; after each test no thread and no descriptor is left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.memory_rendezvous import MemoryRendezvous
from tests.support.threads import no_thread_left


@pytest.fixture
def rendezvous() -> Iterator[MemoryRendezvous]:
    gc.collect()  # what earlier tests left for the collector may hold descriptors
    descriptors = _descriptors()
    with no_thread_left(), MemoryRendezvous().open() as rendezvous:
        yield rendezvous
    assert _descriptors().items() <= descriptors.items()  # one of an earlier test may end


def _descriptors() -> dict[str, Path]:
    """What is open, by the descriptors' numbers."""
    found = {}
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # that of the listing itself
            found[path.name] = path.readlink()
    return found
