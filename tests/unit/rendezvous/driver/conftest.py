"""A rendezvous in memory; after each test no thread and no descriptor is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.memory_rendezvous import MemoryRendezvous
from tests.support.threads import no_thread_left


@pytest.fixture
def rendezvous() -> Iterator[MemoryRendezvous]:
    with no_descriptor_left(), no_thread_left(), MemoryRendezvous().open() as rendezvous:
        yield rendezvous
