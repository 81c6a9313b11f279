"""Failed workers are started again, as often as the budget allows, and from a clean slate."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llutil.agent.failures.report import WorkersFailed
from llutil.errors import ResultError
from tests.support import worker_functions
from tests.support.launches import launch

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

LIMIT = 60.0  # seconds on a loaded machine; the interval is 1000 s, so what ends a job is an event


def starts(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_job_that_fails_once_succeeds_at_its_second_start(method: str, folder: str) -> None:
    started = time.monotonic()
    found = launch(
        worker_functions.fail_until, 1, folder, nproc=2, max_restarts=3, start_method=method
    )
    assert found == {0: "1", 1: "1"}
    assert set(starts(folder)) >= {"start-1-rank-0", "start-1-rank-1"}
    assert time.monotonic() - started < LIMIT


def test_the_budget_is_spent_and_then_the_last_failure_is_the_jobs(folder: str) -> None:
    with pytest.raises(WorkersFailed) as caught:
        launch(worker_functions.fail_until, 9, folder, max_restarts=2)
    assert starts(folder) == [f"start-{count}-rank-0" for count in range(3)]
    failure = caught.value.failure
    assert failure is not None
    assert (failure.restart, failure.max_restarts) == (2, 2)
    assert failure.reason == "ValueError: not yet: 2"


def test_no_budget_means_no_restart(folder: str) -> None:
    with pytest.raises(WorkersFailed, match="after 0 of 0 restarts"):
        launch(worker_functions.fail_until, 1, folder, max_restarts=0)
    assert starts(folder) == ["start-0-rank-0"]


def test_a_value_that_cannot_be_returned_starts_nothing_again(folder: str) -> None:
    def cannot_be_returned(folder: str) -> object:
        import threading

        Path(folder, f"start-{time.monotonic()}").touch()
        return threading.Lock()

    with pytest.raises(ResultError, match="cannot be pickled"):
        launch(cannot_be_returned, folder, max_restarts=3)
    assert len(starts(folder)) == 1


def test_every_rank_is_started_again_when_one_fails(folder: str) -> None:
    def rank_one_is_killed_once(folder: str) -> int:
        import os
        import signal

        rank, count = os.environ["RANK"], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        Path(folder, f"start-{count}-rank-{rank}").touch()
        if count == 0:
            if rank == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return count

    started = time.monotonic()
    found = launch(rank_one_is_killed_once, folder, nproc=3, max_restarts=1)
    assert found == {0: 1, 1: 1, 2: 1}
    assert time.monotonic() - started < LIMIT


def test_a_rank_that_only_notes_the_stop_does_not_hold_up_a_restart(folder: str) -> None:
    """Lightning and Transformers finish their step first; it never ends, since a peer is gone."""

    def waits_for_a_peer_that_is_killed(folder: str) -> int:
        import os
        import signal

        count = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        if count == 0:
            signal.signal(signal.SIGTERM, lambda *_: Path(folder, "noted").touch())
            Path(folder, f"ready-{os.environ['RANK']}").touch()
            while len(list(Path(folder).glob("ready-*"))) < 2:
                time.sleep(0.01)
            if os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            end = time.monotonic() + 600
            while time.monotonic() < end:
                time.sleep(1)
        return count

    started = time.monotonic()
    found = launch(
        waits_for_a_peer_that_is_killed,
        folder,
        nproc=2,
        max_restarts=1,
        shutdown_timeout=2 * LIMIT,
        restart_grace=0.2,
    )
    assert found == {0: 1, 1: 1}
    assert Path(folder, "noted").exists()
    assert time.monotonic() - started < LIMIT


def test_a_new_round_starts_with_empty_slots() -> None:
    assert launch(worker_functions.report_progress_and_fail_once, max_restarts=1) == {
        0: {0: (1, 10)}
    }


def test_each_start_has_log_files_of_its_own(folder: str, tmp_path: Path) -> None:
    from llutil.std import Std

    with pytest.raises(WorkersFailed):
        launch(
            worker_functions.fail_until,
            9,
            folder,
            max_restarts=1,
            run_id="run",
            log_dir=str(tmp_path / "logs"),
            redirects=Std.ALL,
        )
    (run,) = (tmp_path / "logs").iterdir()
    for attempt in (0, 1):
        text = (run / f"attempt_{attempt}" / "0" / "stderr.log").read_text()
        assert f"ValueError: not yet: {attempt}" in text
