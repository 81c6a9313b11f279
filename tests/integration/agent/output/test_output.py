"""Where workers' output goes: console, files, both, by rank."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
from torch.distributed.elastic.multiprocessing import Std as TorchStd

from llutil.agent.failures.report import WorkersFailed
from llutil.agent.output import pipe_pump
from llutil.launcher import LaunchConfig, elastic_launch
from llutil.std import Std
from tests.support import worker_functions
from tests.support.launches import launch, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]


def console(capfd: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    out, err = capfd.readouterr()
    return sorted(out.splitlines()), sorted(err.splitlines())


def logs(base: Path) -> dict[str, list[str]]:
    """Lines by file, below the one run's one attempt."""
    (run,) = base.iterdir()
    files = (run / "attempt_0").glob("*/*.log")
    return {f"{path.parent.name}/{path.stem}": path.read_text().splitlines() for path in files}


def test_by_default_output_goes_to_the_callers_own_streams(
    capfd: pytest.CaptureFixture[str], temporary: Path
) -> None:
    launch(worker_functions.speak, nproc=2)
    assert console(capfd) == (["child 0", "child 1", "out 0", "out 1"], ["err 0", "err 1"])


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_redirected_output_goes_to_files_by_rank(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, method: str
) -> None:
    launch(
        worker_functions.speak,
        nproc=2,
        redirects=Std.ALL,
        log_dir=str(tmp_path),
        start_method=method,
    )
    assert console(capfd) == ([], [])
    assert logs(tmp_path) == {
        "0/stdout": ["out 0", "child 0"],
        "0/stderr": ["err 0"],
        "1/stdout": ["out 1", "child 1"],
        "1/stderr": ["err 1"],
    }


def test_teed_output_goes_to_both_and_says_on_the_console_whose_it_is(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    launch(worker_functions.speak, nproc=2, tee=Std.ALL, log_dir=str(tmp_path), role="trainer")
    assert console(capfd) == (
        ["[trainer0]:child 0", "[trainer0]:out 0", "[trainer1]:child 1", "[trainer1]:out 1"],
        ["[trainer0]:err 0", "[trainer1]:err 1"],
    )
    assert logs(tmp_path)["1/stdout"] == ["out 1", "child 1"]


def test_lines_that_hold_a_wanted_text_are_also_in_a_file_of_their_own_as_in_torch(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = "echo loss 1; echo step 2; echo 'a NaN'; echo oops >&2; echo loss >&2"
    filters: dict[str, Any] = {
        "duplicate_stdout_filters": ["loss", "NaN"],
        "duplicate_stderr_filters": ["oops"],
    }
    ours, stock = tmp_path / "ours", tmp_path / "stock"
    config = LaunchConfig(
        1, 1, 2, log_dir=ours, tee=Std.ALL, local_ranks_filter={1}, role="r", **filters
    )
    elastic_launch(config, "bash")("-c", script)
    # torch may lose the last lines of a rank that ends, so its ranks end when it has read them.
    os.mkfifo(tmp_path / "end")
    context = start_processes(
        name="r",
        entrypoint="bash",
        args=dict.fromkeys(range(2), ("-c", f"{script}; read < {tmp_path / 'end'}")),
        envs={rank: {} for rank in range(2)},
        logs_specs=DefaultLogsSpecs(str(stock), tee=TorchStd.ALL, local_ranks_filter={1}),
        **filters,
    )

    def filtered(folder: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in folder.glob("*/attempt_0/*.log")}

    wanted = {
        "filtered_stdout.log": "[r1]:loss 1\n[r1]:a NaN\n",
        "filtered_stderr.log": "[r1]:oops\n",
    }
    try:
        assert wait_until(lambda: filtered(stock) == wanted), filtered(stock)
    finally:
        context.close()
    assert filtered(ours) == wanted
    capfd.readouterr()


def test_ranks_and_streams_may_be_treated_apart(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    launch(
        worker_functions.speak,
        nproc=3,
        redirects={0: Std.OUT},
        tee={1: Std.ERR},
        log_dir=str(tmp_path),
    )
    assert console(capfd) == (
        ["child 1", "child 2", "out 1", "out 2"],
        ["[default_role1]:err 1", "err 0", "err 2"],
    )
    assert logs(tmp_path) == {"0/stdout": ["out 0", "child 0"], "1/stderr": ["err 1"]}


@pytest.mark.parametrize("tee", [Std.NONE, Std.ALL])
def test_ranks_that_are_filtered_out_are_not_on_the_console_but_in_their_files(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, tee: Std
) -> None:
    launch(
        worker_functions.speak, nproc=3, tee=tee, log_dir=str(tmp_path), local_ranks_filter=[0, 2]
    )
    prefixes = {0: "[default_role0]:", 2: "[default_role2]:"} if tee else {0: "", 2: ""}
    assert console(capfd) == (
        sorted(
            f"{mark}{who} {rank}" for rank, mark in prefixes.items() for who in ("out", "child")
        ),
        sorted(f"{mark}err {rank}" for rank, mark in prefixes.items()),
    )
    if tee:
        assert logs(tmp_path)["1/stdout"] == ["out 1", "child 1"]
        assert logs(tmp_path)["1/stderr"] == ["err 1"]


def test_a_rank_that_is_filtered_out_still_tells_why_it_failed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(WorkersFailed, match="\n  last words on stderr\n"):
        launch(worker_functions.end, "SIGKILL", local_ranks_filter={7})
    assert console(capfd) == ([], [])


def test_of_nine_ranks_the_first_is_shown_and_the_last_words_of_the_one_that_fails(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def speak() -> None:
        rank = os.environ["RANK"]
        print(f"out {rank}", flush=True)
        print(f"err {rank}", file=sys.stderr, flush=True)
        (tmp_path / f"spoken-{rank}").touch()
        if rank == "8":
            assert wait_until((tmp_path / "spoken-0").exists)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    base = tmp_path / "logs"
    options = {"local_ranks_filter": "auto", "log_dir": base, "start_method": "fork"}
    with (
        caplog.at_level(logging.INFO, "llutil"),
        pytest.raises(WorkersFailed, match="rank 8: signal 9") as caught,
    ):
        launch(speak, nproc=9, max_restarts=0, restart_grace=0, **options)
    assert console(capfd) == (["out 0"], ["err 0"])
    assert "the last lines of its standard error:\n  err 8\n" in str(caught.value)
    found = logs(base)
    assert found["8/stdout"] == ["out 8"]
    assert found["8/stderr"] == ["err 8"]
    assert len(found) == 16
    (told,) = [r.getMessage() for r in caplog.records if "local_ranks_filter" in r.getMessage()]
    assert told.count("attempt_0/") == 8


def test_without_a_log_folder_a_temporary_one_is_made_and_kept(temporary: Path) -> None:
    launch(worker_functions.speak, redirects=Std.ALL)
    (base,) = Path(tempfile.gettempdir()).glob("llutil_logs_*")
    assert base.parent == temporary
    assert logs(base)["0/stderr"] == ["err 0"]


def test_the_folder_is_named_by_the_run(tmp_path: Path) -> None:
    launch(worker_functions.speak, redirects=Std.ALL, log_dir=tmp_path / "logs", run_id="my-run")
    (run,) = (tmp_path / "logs").iterdir()
    assert run.name.startswith("my-run_")


def test_many_long_lines_arrive_whole_and_in_order(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def chatter() -> None:
        for number in range(3_000):
            print(f"{number} {'x' * 1_000}")

    launch(chatter, tee=Std.OUT, log_dir=str(tmp_path))
    lines = [f"{number} {'x' * 1_000}" for number in range(3_000)]
    assert capfd.readouterr().out.splitlines() == [f"[default_role0]:{line}" for line in lines]
    assert logs(tmp_path)["0/stdout"] == lines


def test_the_last_words_before_a_crash_are_kept(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(WorkersFailed) as caught:
        launch(worker_functions.end, "SIGKILL", tee=Std.ALL, log_dir=str(tmp_path))
    assert console(capfd) == (
        ["[default_role0]:last words on stdout"],
        ["[default_role0]:last words on stderr"],
    )
    assert "the last lines of its standard error:\n  last words on stderr\n" in str(caught.value)


def test_a_full_disk_under_the_log_does_not_end_the_job(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console still has the lines."""

    def speak_into_a_full_disk() -> str:
        print("heard", flush=True)
        return "done"

    monkeypatch.setattr(pipe_pump, "open_log", lambda _path: os.open("/dev/full", os.O_WRONLY))
    assert launch(speak_into_a_full_disk, tee=Std.ALL, log_dir=str(tmp_path)) == {0: "done"}
    assert "[default_role0]:heard" in capfd.readouterr().out


def test_output_that_is_not_text_is_shown_with_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    def speak_in_bytes() -> None:
        os.write(1, b"caf\xc3\xa9 \xff\n")

    launch(speak_in_bytes, tee=Std.OUT)
    assert capfd.readouterr().out == "[default_role0]:café \\xff\n"


def test_a_terminal_that_knows_fewer_characters_gets_escapes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.dup(1), "w", encoding="ascii") as ascii_only:  # noqa: PTH123 - a descriptor has no path
        monkeypatch.setattr(sys, "stdout", ascii_only)
        launch(worker_functions.say, "caf\xe9", tee=Std.OUT)
    assert capfd.readouterr().out == "[default_role0]:caf\\xe9\n"
