"""What a kill has cost a training is how much later it is than without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench._training_lives import Life, await_life, cost, read_life


def _life(resumed: int, began: float, steps: int) -> Life:
    times = tuple(began + number * 0.01 for number in range(1, steps + 1))
    return Life("life-1", (1, 2), resumed, times)


def test_steps_that_are_done_again_and_the_time_that_it_stood_are_the_cost() -> None:
    before = _life(0, 0.0, 300)  # killed after step 300, at 3 s
    after = _life(250, 5.0, 10)  # its first step is done at 5.01 s
    found = cost(3.0, before, after)
    assert found.again == pytest.approx(0.50)
    assert found.stood == pytest.approx(2.0)
    assert found.lost == pytest.approx(2.5)


def test_what_is_done_and_saved_after_the_kill_is_not_lost() -> None:
    before = _life(0, 0.0, 350)  # cleared at 3 s, it saved after step 350
    after = _life(350, 6.0, 10)
    found = cost(3.0, before, after)
    assert found.again == 0
    assert found.lost == pytest.approx(2.5)


def _write(folder: Path, life: int, rank: int, text: str) -> None:
    (folder / f"life-{life}-{rank}").write_text(text)


def test_the_newest_life_is_read_once_both_ranks_have_made_a_step(tmp_path: Path) -> None:
    _write(tmp_path, 1, 0, "11 0\n1 5.0\n2 5.2\n")
    assert read_life(tmp_path, "life-1") is None
    _write(tmp_path, 1, 1, "12 0\n1 5.1\n2 5.3\n3 5")
    assert read_life(tmp_path, "life-1") == Life("life-1", (11, 12), 0, (5.1, 5.3))
    _write(tmp_path, 2, 0, "13 2\n3 9.0\n")
    _write(tmp_path, 2, 1, "14 2\n3 9.0\n")
    found = await_life("a test", tmp_path, lambda life: True, str)
    assert (found.name, found.step) == ("life-2", 3)
