"""What a forked rank tells libraries that its parent has imported: threads, and random numbers.

It touches only libraries that are imported already, and may import ``fork_environment``.
"""

from __future__ import annotations

import os
import sys

from llutil.agent.worker_side.fork_environment import torch_threads

__all__ = ["reseed_generators", "set_torch_threads"]

_SHORTEST_RANDOM_SEED = 1 << 32


def set_torch_threads() -> None:
    """Give torch the number of threads of OMP_NUM_THREADS. torch was imported before the fork and
    read another value then (torch 2.13).
    """
    threads = torch_threads(os.environ)
    if threads is not None and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def reseed_generators() -> None:
    """Seed the generators again that were seeded before the fork, so that ranks draw different
    numbers.

    In a fresh interpreter they differ anyway. ``random`` seeds itself again in a fork (CPython
    3.11), numpy and torch do not. A seed that a caller set is kept. It is recognized like this:
    numpy has no ``seed_seq`` after a caller's seed (2.4), and torch's own first seed has 53 random
    bits (2.13, ``getNonDeterministicRandom``), so a short one was set by a caller.
    """
    if "numpy.random" in sys.modules:
        random = sys.modules["numpy.random"]
        own = random.get_bit_generator()
        if type(own) is random.MT19937 and own.seed_seq is not None:
            random.set_state(random.MT19937().state)
    if "torch" in sys.modules:
        generator = sys.modules["torch"].default_generator
        if generator.initial_seed() >= _SHORTEST_RANDOM_SEED:
            generator.seed()
