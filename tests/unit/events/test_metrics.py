"""The metrics of a rank: names, values, room."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from llutil.events.events import CAPACITY, Events
from llutil.events.metrics import COUNT, RankMetrics


@pytest.fixture
def page() -> Iterator[Events]:
    events = Events.private()
    yield events
    events.close()


def rank(page: Events, number: int) -> RankMetrics:
    slot = page.slot(number)
    slot.report(1)
    return page.metrics_of(slot)


def test_each_rank_has_metrics_of_its_own(page: Events) -> None:
    first, last = rank(page, 0), rank(page, CAPACITY - 1)
    first.write({"loss": 0.5, "rate": 2})
    last.write({"accuracy": 0.25})
    first.write({"loss": 0.25})
    assert page.metrics() == {0: {"loss": 0.25, "rate": 2.0}, CAPACITY - 1: {"accuracy": 0.25}}
    page.reset_slots()
    assert page.metrics() == {}


def test_there_is_room_for_eight_and_what_is_left_out_is_named_once(
    page: Events, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = rank(page, 0)
    for _ in range(2):
        metrics.write({f"m{number}": float(number) for number in range(COUNT + 1)})
    assert metrics.read() == {f"m{number}": float(number) for number in range(COUNT)}
    with caplog.at_level(logging.WARNING):
        assert caplog.text.count(f"the metric m{COUNT} is left out") == 1


def test_a_long_name_is_cut_to_whole_letters(page: Events) -> None:
    metrics = rank(page, 0)
    metrics.write({"a" + "ä" * 40: 1.0})
    assert metrics.read() == {"a" + "ä" * 15: 1.0}


def test_long_names_that_begin_alike_stay_apart_and_each_is_named_once(
    page: Events, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = rank(page, 0)
    names = [f"validation_classification_accuracy_{end}" for end in ("top1", "top5", "top9")]
    cut = "validation_classification_accura"
    with caplog.at_level(logging.WARNING):
        for loss in (0.5, 0.25):
            metrics.write({names[0]: loss, names[1]: 0.75, cut: 1.0, names[2]: 2})
    assert metrics.read() == {
        cut: 0.25,
        cut[:-2] + "~2": 0.75,
        cut[:-2] + "~3": 1.0,
        cut[:-2] + "~4": 2.0,
    }
    assert [record.getMessage() for record in caplog.records] == [
        f"the metric {names[0]} is shown as {cut}: a name may have 32 bytes",
        f"the metric {names[1]} is shown as {cut[:-2]}~2: a name may have 32 bytes",
        f"the metric {cut} is shown as {cut[:-2]}~3: a longer name was cut to it",
        f"the metric {names[2]} is shown as {cut[:-2]}~4: a name may have 32 bytes",
    ]


def test_what_is_no_plain_number_is_converted_at_once_and_then_once_a_second(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5_000_000_000
    monkeypatch.setattr("llutil.events.metrics.time.monotonic_ns", lambda: now)

    class Tensor:
        looks = 0

        def __float__(self) -> float:
            self.looks += 1
            return float(self.looks)

    tensor, metrics = Tensor(), rank(page, 0)
    for _ in range(3):
        metrics.write({"loss": tensor})
    assert metrics.read() == {"loss": 1.0}
    now += 1_000_000_000
    metrics.write({"loss": tensor})
    assert metrics.read() == {"loss": 2.0}


@pytest.mark.parametrize("value", ["high", None, 10**400])
def test_a_metric_that_is_no_number_is_named(page: Events, value: object) -> None:
    with pytest.raises(TypeError, match="the metric loss is "):
        rank(page, 0).write({"loss": value})
