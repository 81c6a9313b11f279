"""What ranks returned is pushed to XCom, also if Airflow's API server is away for a while."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.results import push
from airflow_provider.results.reference import StoredResult
from llutil.errors import ResultError

NETWORK = {"status_code": None, "message": "refused", "exception_type": "ConnectError"}
BUSY = {"status_code": 503, "message": "Service Unavailable", "detail": None}
TOO_LARGE = {"status_code": 413, "message": "Content Too Large", "detail": None}
BROKEN = {"status_code": None, "message": "no such thing", "exception_type": "KeyError"}


class TaskInstance:
    """Stores what is pushed, after it has raised these errors."""

    def __init__(self, *errors: Exception) -> None:
        self.stored: dict[str, Any] = {}
        self.attempts = 0
        self._errors = [*errors]

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.attempts += 1
        if self._errors:
            raise self._errors.pop(0)
        self.stored[key] = value


def refused(detail: dict[str, Any], kind: ErrorType = ErrorType.API_SERVER_ERROR) -> Exception:
    return AirflowRuntimeError(ErrorResponse(error=kind, detail=detail))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time."""
    made: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize("detail", [NETWORK, BUSY])
def test_a_value_is_pushed_again_until_the_server_is_back(
    detail: dict[str, Any],
    pauses: list[float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ti = TaskInstance(*[refused(detail) for _ in range(7)])
    assert push.push_results(ti, {0: 1.5}, {"gang": {"node": 0}}, tmp_path) == {"0": 1.5}
    assert ti.stored == {"rank_0": 1.5, "gang": {"node": 0}}
    assert len(pauses) == 7
    assert all(1 <= pause <= 10 for pause in pauses)
    assert caplog.text.count("'rank_0' could not be pushed; the next attempt follows in") == 7


@pytest.mark.parametrize(
    "error",
    [
        refused(TOO_LARGE),
        refused(BROKEN),
        refused(NETWORK, ErrorType.GENERIC_ERROR),
        refused({}),
        ConnectionError("a backend of the user's own"),
    ],
)
def test_what_another_attempt_cannot_mend_is_not_pushed_again(
    error: Exception, pauses: list[float], tmp_path: Path
) -> None:
    ti = TaskInstance(error)
    with pytest.raises(ResultError, match="rank 0: Airflow did not take what it returned"):
        push.push_results(ti, {0: 1.5}, {}, tmp_path)
    assert ti.attempts == 1
    assert not pauses
    (kept,) = tmp_path.iterdir()
    assert "1.5" in kept.read_text()


def test_a_server_that_stays_away_ends_it_for_all_values_together_and_they_are_kept(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], tmp_path: Path
) -> None:
    monkeypatch.setattr(push, "time", SimpleNamespace(monotonic=lambda: sum(pauses)))
    ti = TaskInstance(*[refused(NETWORK) for _ in range(2000)])
    with pytest.raises(ResultError, match=r"refused.*it is kept"):
        push.push_results(ti, {0: 1.5, 1: 2.5}, {"gang": {"node": 0}}, tmp_path)
    assert 600 <= sum(pauses) < 610
    assert ti.attempts == len(pauses) + 3
    assert len([*tmp_path.iterdir()]) == 2


class Alarm(BaseException):
    """What Airflow's alarm raises is no Exception either."""


class AlarmedTaskInstance(TaskInstance):
    """The alarm comes while the value of rank 1 is pushed."""

    def xcom_push(self, *, key: str, value: Any) -> None:
        if key == "rank_1":
            raise Alarm
        super().xcom_push(key=key, value=value)


def test_an_alarm_loses_no_value_and_what_is_pushed_is_not_kept_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = StoredResult(uri="s3://bucket/rank_3.json", size=2, preview="{}", format="json")
    values = {0: 1.5, 1: 2.5, 2: 3.5, 3: stored, 4: None}
    with pytest.raises(Alarm):
        push.push_results(AlarmedTaskInstance(), values, {}, tmp_path)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"rank_1.json": "2.5", "rank_2.json": "3.5"}
    assert [line[:7] for line in caplog.messages] == ["rank 1:", "rank 2:", "rank 3:"]
    assert caplog.messages[2].endswith("it is at s3://bucket/rank_3.json")
