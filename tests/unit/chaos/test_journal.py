"""What ranks did is written down for a test, and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llutil.chaos import journal, note_samples
from llutil.launcher.data import ElasticSampler


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(journal.JOURNAL, str(tmp_path))
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(journal, "_file", None)
    yield tmp_path
    if journal._file is not None:
        os.close(journal._file[1])


def lines(folder: Path) -> list[object]:
    (path,) = folder.iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_samples_are_noted_where_somebody_wants_to_know(kept: Path) -> None:
    note_samples(range(2), epoch=3)
    head, noted = lines(kept)
    assert head == {"rank": 1, "world": "2", "node": "0", "round": ""}
    assert noted == {"samples": [0, 1], "epoch": 3}


def test_nothing_is_written_where_nobody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(journal.JOURNAL, raising=False)
    note_samples([1])
    assert not list(tmp_path.iterdir())


def test_an_elastic_sampler_notes_what_was_trained_on_and_not_what_was_fetched(kept: Path) -> None:
    sampler = ElasticSampler(10, 2, rank=0, world_size=1)
    batches = list(sampler)
    sampler.advance()
    sampler.advance(2)
    _, *noted = lines(kept)
    assert noted == [{"samples": batch, "epoch": 0} for batch in batches[:3]]


def test_a_rank_without_a_batch_in_the_last_step_notes_none(kept: Path) -> None:
    sampler = ElasticSampler(1, 2, rank=1, world_size=2)
    assert list(sampler) == []
    sampler.advance()
    assert not list(kept.iterdir())
