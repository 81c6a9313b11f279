"""Each sample of an epoch is seen by one committed step, whoever dies when, and with any number of
ranks.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.checkpoints.marker import MARKER
from llutil.launcher import warm_workers
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.integration.checkpoints.sampling_functions import PLACES, train

pytestmark = [pytest.mark.launch, pytest.mark.fault]

KILLS = 20
BATCH = 4
# Each life does a few steps of at most 12 samples.
LENGTH = 48 * KILLS


def test_after_20_kills_with_one_two_and_three_ranks_each_sample_was_committed_once(
    temporary: Path,
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    folder = temporary / "checkpoints"

    def live(ranks: int, victim: int, after: int, place: str) -> dict[int, int]:
        config = LaunchConfig(
            1,
            1,
            ranks,
            run_id="once",
            start_method="forkserver",
            max_restarts=0,
            checkpoint_path=str(folder),
            checkpoint_keep=10_000,
        )
        return launch_agent(config, train, [LENGTH, BATCH, victim, after, place])

    with warm_workers():
        for number in range(KILLS):
            ranks = 1 + number % 3
            victim, after = chosen.randrange(ranks), chosen.randint(1, 4)
            with pytest.raises(ChildFailedError):
                live(ranks, victim, after, PLACES[number // 3 % len(PLACES)])
        assert live(3, -1, 0, "") == {0: LENGTH, 1: LENGTH, 2: LENGTH}
    committed = [path.parent for path in folder.rglob(MARKER)]
    seen = Counter[int]()
    for checkpoint in committed:
        for rank in checkpoint.glob("rank-*"):
            seen.update(json.loads(rank.read_text())["samples"])
    assert seen == Counter(range(LENGTH))
