"""What a job leaves in torch elastic's events and metrics: what a stock agent would, and our
own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.distributed.elastic import metrics
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api as stock

from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support.etcd_servers import etcd

pytestmark = [pytest.mark.etcd, pytest.mark.launch]

Event = dict[str, Any]
Launch = Callable[[Callable[..., Any], list[Any]], Any]

taken: list[tuple[str, str, int]] = []


class Handler(metrics.MetricHandler):  # type: ignore[misc]
    """Keeps what it is given."""

    def emit(self, metric_data: Any) -> None:
        taken.append((metric_data.group_name, metric_data.name, metric_data.value))


HANDLER = f"{__name__}:Handler"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with etcd() as server:
        yield str(server.endpoint)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """torch's agent leaves its signal handlers, and metrics their handlers."""
    taken.clear()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    for group in ("torchelastic", "llutil"):
        metrics.configure(metrics.NullMetricHandler(), group)


def fail_once(restarts: int) -> int:
    """Rank 1 fails until there were so many restarts; rank 0 waits for that."""
    if int(os.environ["TORCHELASTIC_RESTART_COUNT"]) < restarts:
        if os.environ["RANK"] == "1":
            raise ValueError("no such digit")
        time.sleep(60)
    return int(os.environ["RANK"])


def launch_stock(function: Callable[..., Any], args: list[Any]) -> Any:
    config = stock.LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="a-job",
        role="trainer",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=1,
        monitor_interval=0.05,
        start_method="fork",
    )
    metrics.configure(Handler(), "torchelastic")
    return stock.launch_agent(config, function, args)


def launch_ours(endpoint: str, run_id: str) -> Launch:
    config = LaunchConfig(
        1,
        1,
        2,
        run_id,
        "trainer",
        endpoint,
        max_restarts=1,
        monitor_interval=1000,
        start_method="fork",
        rdzv_configs={"lease_ttl": 60, "last_call_timeout": 0.1} if endpoint else {},
        metrics_cfg={"torchelastic": HANDLER, "llutil": HANDLER},
    )
    return lambda function, args: launch_agent(config, function, args)


class _Events(logging.Handler):
    """Keeps torch elastic's events, as they are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(json.loads(record.getMessage()))


def events_of(launch: Launch, restarts: int) -> list[Event]:
    logger, handler = logging.getLogger("torchelastic-events-null"), _Events()
    logger.addHandler(handler)
    try:
        if restarts > 1:
            with pytest.raises(ChildFailedError):
                launch(fail_once, [restarts])
        else:
            assert launch(fail_once, [restarts]) == {0: 0, 1: 1}
    finally:
        logger.removeHandler(handler)
    return handler.events


def essence(event: Event) -> Event:
    """What does not differ from run to run, nor by design: times, numbers of processes, the
    backend.
    """
    values = event["metadata"]
    inner = json.loads(values["metadata"])
    pid = inner.pop("worker_pid", None)
    return {
        "name": event["name"],
        "source": event["source"],
        "fields": sorted(values),
        **{name: values[name] for name in ("state", "global_rank", "role", "agent_restarts")},
        "group_rank": values["group_rank"],
        "error": "no such digit" in (values["raw_error"] or ""),
        "timed": values["duration_ms"] is not None,
        "pid": pid is not None and pid != [None],
        "worker": (values["worker_id"] or "").isdigit(),
        "inner": {name: value for name, value in inner.items() if name != "entry_point"},
    }


@pytest.mark.parametrize("restarts", [0, 1, 2], ids=["well", "after a restart", "not"])
def test_a_job_records_the_events_that_a_stock_agent_would(restarts: int, endpoint: str) -> None:
    expected = [essence(event) for event in events_of(launch_stock, restarts)]
    names = [event["name"].rpartition(".")[2] for event in expected]
    assert names[:4] == ["RENDEZVOUS", "ASSIGN_WORKER_RANKS", "START", "START"]
    assert len(expected) == 7 + 4 * min(restarts, 1)
    stocks = {
        name for group, name, _ in taken if group == "torchelastic" and name.startswith("workers.")
    }
    for where in ("", endpoint):
        taken.clear()
        found = events_of(launch_ours(where, f"events-{restarts}"), restarts)
        assert [essence(event) for event in found] == expected, where or "embedded"
        ours = {
            name
            for group, name, _ in taken
            if group == "torchelastic" and name.startswith("workers.")
        }
        assert ours == stocks - {"workers.trainer.healthy"}


def test_our_own_metrics_tell_launch_rendezvous_and_restart(endpoint: str) -> None:
    for where in ("", endpoint):
        taken.clear()
        launch_ours(where, "metrics")(fail_once, [1])
        ours = [(name, value) for group, name, value in taken if group == "llutil"]
        assert [name for name, _ in ours] == [
            "rendezvous.trainer.duration.ms",
            "restart.trainer.count",
            "launch.trainer.duration.ms",
            "rendezvous.trainer.duration.ms",
            "restart.trainer.count",
            "restart.trainer.duration.ms",
        ], where or "embedded"
        assert [value for name, value in ours if name.endswith("count")] == [0, 1]
        times = {name: value for name, value in ours if name.endswith("ms")}
        assert all(0 <= value < 60_000 for value in times.values())
        assert times["restart.trainer.duration.ms"] >= times["rendezvous.trainer.duration.ms"]


def test_metrics_may_go_to_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    config = LaunchConfig(1, 1, 1, start_method="fork", metrics_cfg={"llutil": "console"})
    launch_agent(config, os.getpid, [])
    assert "[llutil]: restart.default_role.count=0" in capsys.readouterr().out


class Away(metrics.MetricHandler):  # type: ignore[misc]
    """Takes nothing, since what takes it is away."""

    def emit(self, metric_data: Any) -> None:
        raise ConnectionRefusedError("statsd is away")


def test_a_handler_that_fails_costs_no_result(caplog: pytest.LogCaptureFixture) -> None:
    handler = f"{__name__}:Away"
    config = LaunchConfig(1, 1, 1, start_method="fork", metrics_cfg={"torchelastic": handler})
    assert launch_agent(config, fail_once, [0]) == {0: 0}
    warnings = [one.getMessage() for one in caplog.records if "statsd is away" in one.getMessage()]
    assert len(warnings) == 1
