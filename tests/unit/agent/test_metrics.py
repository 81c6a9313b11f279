"""Our metrics: what is put when, through torch's API, and who takes it."""

from __future__ import annotations

from typing import Any

import pytest
from torch.distributed.elastic import metrics as torchs

from llutil.agent.metrics import GROUP, Stopwatch, configure
from llutil.errors import ConfigError
from llutil.events.events import Events

taken: list[tuple[str, str, int]] = []


class Handler(torchs.MetricHandler):  # type: ignore[misc]
    """Keeps what it is given."""

    def emit(self, metric_data: Any) -> None:
        taken.append((metric_data.group_name, metric_data.name, metric_data.value))


class NoHandler:
    """Takes nothing."""


class Broken:
    """Cannot even be made."""

    def __init__(self) -> None:
        raise OSError("no such daemon")


@pytest.fixture(autouse=True)
def _silent() -> Any:
    taken.clear()
    yield
    configure({GROUP: "null", "mine": "null"})


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_time_is_put_once_it_is_known() -> None:
    configure({GROUP: f"{__name__}:Handler"})
    clock = Clock()
    told: list[tuple[str, float]] = []
    watch = Stopwatch("trainer", clock, lambda *one: told.append(one))

    def after(seconds: float, step: Any) -> list[tuple[str, str, int]]:
        clock.now += seconds
        taken.clear()
        step()
        return list(taken)

    def ours(name: str, value: int) -> tuple[str, str, int]:
        return ("llutil", name, value)

    assert after(0, watch.begin) == []
    assert after(0.25, watch.round_found) == [ours("rendezvous.trainer.duration.ms", 250)]
    assert after(1, lambda: watch.workers_started(0)) == [
        ours("restart.trainer.count", 0),
        ours("launch.trainer.duration.ms", 1250),
    ]
    assert after(60, watch.round_over) == []
    assert after(2, watch.ready) == []
    assert after(0.5, watch.round_found) == [ours("rendezvous.trainer.duration.ms", 500)]
    assert after(0.125, lambda: watch.workers_started(1)) == [
        ours("restart.trainer.count", 1),
        ours("restart.trainer.duration.ms", 2625),
    ]
    assert told == [
        ("rendezvous", 0.25),
        ("launch", 1.25),
        ("rendezvous", 0.5),
        ("restart", 2.625),
    ]


def test_each_group_has_its_own_handler(capsys: pytest.CaptureFixture[str]) -> None:
    configure({GROUP: f"{__name__}:Handler", "mine": "console"})
    for group in (GROUP, "mine", "nobody's"):
        torchs.put_metric("a", 1, group)
    assert taken == [(GROUP, "a", 1)]
    assert "[mine]: a=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no.such:Handler", "ModuleNotFoundError: No module named 'no'"),
        (f"{__name__}:Nobody", "AttributeError"),
        (f"{__name__}:Broken", "OSError: no such daemon"),
        (f"{__name__}:NoHandler", "has no emit"),
    ],
)
def test_a_handler_that_cannot_be_made_is_a_bad_configuration(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match="metrics_cfg\\['mine'\\]") as caught:
        configure({"mine": name})
    assert says in str(caught.value)


class Away(torchs.MetricHandler):  # type: ignore[misc]
    """Takes nothing, since what takes it is away."""

    def emit(self, metric_data: Any) -> None:
        taken.append((metric_data.group_name, metric_data.name, metric_data.value))
        raise ConnectionRefusedError("statsd is away")


def test_a_handler_that_fails_is_told_all_the_same_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure({GROUP: f"{__name__}:Away"})
    clock = Clock()
    watch = Stopwatch("trainer", clock)
    slot = Events.private().slot(0)
    watch.workers_started(0)
    for step in range(3):
        clock.now += 1.0
        slot.report(step)
        watch.account.look([slot])
    assert watch.end() == "3 s, 67 % training (starting 1 s)"
    assert [name for _, name, _ in taken] == ["restart.trainer.count", "training.trainer.percent"]
    (warning,) = (one.getMessage() for one in caplog.records)
    assert "'llutil'" in warning
    assert "Away failed: ConnectionRefusedError: statsd is away" in warning


class Interrupted(torchs.MetricHandler):  # type: ignore[misc]
    """Is interrupted."""

    def emit(self, metric_data: Any) -> None:
        raise KeyboardInterrupt


def test_a_handler_that_is_interrupted_hides_nothing() -> None:
    configure({GROUP: f"{__name__}:Interrupted"})
    with pytest.raises(KeyboardInterrupt):
        Stopwatch("trainer").workers_started(0)
