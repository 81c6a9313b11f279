"""ElasticSampler: each sample of an epoch once, however often the ranks change."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from llutil.errors import ConfigError
from llutil.launcher.data import ElasticSampler


def ranks(world_size: int, length: int, batch_size: int, **options: Any) -> list[ElasticSampler]:
    return [
        ElasticSampler(length, batch_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]


LIVES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 12)), max_size=8)


@settings(deadline=None)
@given(LIVES, st.integers(1, 80), st.integers(1, 4), st.booleans())
def test_the_samples_of_committed_steps_are_the_epoch_each_once_whatever_the_number_of_ranks(
    lives: list[tuple[int, int, int]], length: int, batch_size: int, shuffle: bool
) -> None:
    state: dict[str, Any] | None = None
    seen = Counter[int]()
    # Each life has ranks that fetch steps ahead, and is killed after some steps, but for the last.
    for world_size, ahead, steps in [*lives, (2, 2, length)]:
        samplers = ranks(world_size, length, batch_size, seed=3, shuffle=shuffle)
        for sampler in samplers:
            if state is not None:
                sampler.load_state_dict(state)
        batches = [iter(sampler) for sampler in samplers]
        queues = [list(islice(of_rank, ahead)) for of_rank in batches]
        for _ in range(steps):
            for queue, of_rank in zip(queues, batches, strict=True):
                queue.extend(islice(of_rank, 1))
            step = [queue.pop(0) for queue in queues if queue]
            if not step:
                break
            seen.update(sample for batch in step for sample in batch)
            for sampler in samplers:
                sampler.advance()
            state = samplers[0].state_dict()
            assert all(sampler.state_dict() == state for sampler in samplers)
    assert seen == Counter(range(length))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int, world_size: int = 1) -> list[int]:
        steps: list[tuple[list[int], ...]] = []
        samplers = ranks(world_size, 60, 2, seed=seed)
        for sampler in samplers:
            sampler.set_epoch(epoch)
        steps += zip(*samplers, strict=True)
        # Ranks take turns in the order of an epoch.
        return [s for step in steps for turn in zip(*step, strict=True) for s in turn]

    assert order(0, 1) == order(0, 1, world_size=3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(0, 0) != list(range(60))
    assert next(iter(ElasticSampler(6, 4, shuffle=False))) == [0, 1, 2, 3]


def test_pad_begins_again_and_drop_last_leaves_out() -> None:
    padded = [list(s) for s in ranks(2, 5, 2, shuffle=False, pad=True)]
    assert padded == [[[0, 2], [4, 1]], [[1, 3], [0, 2]]]
    dropped = ranks(2, 5, 2, shuffle=False, drop_last=True)
    assert [list(sampler) for sampler in dropped] == [[[0, 2]], [[1, 3]]]
    for sampler in dropped:
        sampler.advance()
        assert (sampler.samples, len(sampler)) == (4, 0)
        alone = ElasticSampler(5, 1, shuffle=False, drop_last=True)
        alone.load_state_dict(sampler.state_dict())
        assert len(alone) == 0  # the sample that two ranks have dropped is no step of one rank
        sampler.set_epoch(1)
        assert (sampler.samples, len(sampler)) == (0, 1)


def test_the_last_two_steps_are_smaller_so_that_every_rank_has_both(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nine = [list(sampler) for sampler in ranks(2, 9, 4, shuffle=False)]
    assert nine == [[[0, 2, 4, 6], [7]], [[1, 3, 5], [8]]]
    assert not caplog.records
    one = [list(sampler) for sampler in ranks(2, 1, 4)]
    assert one == [[[0]], []]
    assert [record.getMessage() for record in caplog.records] == [
        "in the last step of epoch 0, 1 of 2 ranks have no batch: use torch's Join context, or pad "
        "or drop_last"
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_loader_fetches_ahead_is_not_in_the_state(workers: int) -> None:
    def loader(sampler: ElasticSampler) -> DataLoader[int]:
        return DataLoader(
            range(40),  # type: ignore[arg-type]
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=bool(workers),
        )

    alone = ElasticSampler(range(40), 4, rank=0, world_size=1)
    seen: list[int] = []
    for batch in islice(loader(alone), 3):
        seen += batch.tolist()
        alone.advance()
    state = pickle.loads(pickle.dumps(alone)).state_dict()
    assert state == {"epoch": 0, "samples": 12, "seed": 0, "shuffle": True, "length": 40}
    for sampler in ranks(2, 40, 4):
        sampler.load_state_dict(state)
        loaded = loader(sampler)
        assert len(loaded) == 4
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            of_epoch = [sample for batch in loaded for sample in batch.tolist()]
            sampler.advance(len(of_epoch) // 4)
            seen += of_epoch if epoch == 0 else []
        assert (len(of_epoch), sampler.samples) == (20, 40)
    assert sorted(seen) == list(range(40))


def test_a_new_iteration_goes_on_behind_the_committed_steps() -> None:
    sampler = ElasticSampler(10, 2, shuffle=False)
    batches = iter(sampler)
    next(batches), next(batches)
    sampler.advance()
    assert next(iter(sampler)) == [2, 3]


def test_ranks_are_those_of_the_launch_when_an_iteration_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = ElasticSampler(8, 2, shuffle=False)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert list(sampler) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        list(sampler)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(pickle.loads(pickle.dumps(sampler))) == [[1, 3], [5, 7]]


def test_a_state_without_advance_and_an_advance_without_batches_are_refused() -> None:
    sampler = ElasticSampler(8, 2)
    with pytest.raises(RuntimeError, match="before an iteration has begun"):
        sampler.advance()
    batches = iter(sampler)
    assert sampler.state_dict()["samples"] == 0
    next(batches)
    with pytest.raises(RuntimeError, match="advance\\(\\) was never called"):
        sampler.state_dict()
    sampler.advance(0)
    assert sampler.state_dict()["samples"] == 0
    sampler.advance()
    with pytest.raises(RuntimeError, match="was given only 1 batches"):
        sampler.advance()
    assert sampler.state_dict()["samples"] == 2


def test_an_epoch_that_is_done_is_not_silently_taken_again() -> None:
    sampler = ElasticSampler(4, 2)
    sampler.advance(len(list(sampler)))
    with pytest.raises(RuntimeError, match="call set_epoch\\(1\\)"):
        iter(sampler)
    after = ElasticSampler(4, 2)
    after.load_state_dict(sampler.state_dict())
    assert list(after) == []
    after.set_epoch(3)
    assert len(list(after)) == 2
    with pytest.raises(ConfigError, match=r"begin the loop at sampler\.epoch"):
        after.set_epoch(2)


STATE = {"epoch": 1, "samples": 4, "seed": 0, "shuffle": True, "length": 8}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"length": 9}, "saved with length 9, and this sampler has 8"),
        ({"seed": 1}, "saved with seed 1"),
        ({"shuffle": False}, "saved with shuffle False"),
        ({"samples": -1}, "samples is -1; wanted 0 or more"),
        ({"samples": 9}, "9 samples done of 8"),
        ({"samples": 1.0}, "samples is 1.0; wanted a whole number"),
        ({"epoch": -2}, "epoch is -2"),
        ({"yielded": 3}, "wanted \\['epoch', 'length', 'samples', 'seed', 'shuffle'\\]"),
    ],
)
def test_a_state_of_other_data_or_another_order_is_refused(
    change: dict[str, Any], says: str
) -> None:
    sampler = ElasticSampler(8, 2)
    with pytest.raises(ConfigError, match=says):
        sampler.load_state_dict(STATE | change)
    assert (sampler.epoch, sampler.samples) == (0, 0)
    sampler.load_state_dict(STATE)
    assert sampler.state_dict() == STATE


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((-1, 2), {}, "length of the dataset is -1"),
        ((8, 0), {}, "batch_size is 0; wanted 1 or more"),
        ((8, 2.5), {}, "batch_size is 2.5"),
        ((8, 2), {"seed": None}, "seed is None"),
        ((8, 2), {"pad": True, "drop_last": True}, "at most one"),
        ((8, 2), {"rank": 0}, "wanted both or neither"),
        ((8, 2), {"rank": 2, "world_size": 2}, "rank is 2 of 2; wanted 0 to 1"),
    ],
)
def test_values_that_cannot_be_used_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        ElasticSampler(*arguments, **options)


def test_it_logs_nothing_in_the_usual_case(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        list(ElasticSampler(10, 3))
    assert not caplog.records
