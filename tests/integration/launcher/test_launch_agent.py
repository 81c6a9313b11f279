"""What can be launched, with every start method, and what comes back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llutil.errors import ConfigError
from llutil.events.events import Events
from llutil.launcher import build_starter, elastic_launch
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support import worker_functions
from tests.support.launches import config, launch

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

METHODS = ["spawn", "fork", "forkserver"]
FUNCTIONS = "tests.support.worker_functions"

SCRIPT = """
import json, os, sys
from llutil.launcher import worker
record = {
    "argv": sys.argv[1:], "name": __name__, "file": __file__, "path": sys.path[0],
    "rank": worker.rank(), "main": sys.modules["__main__"].__dict__ is globals(),
}
with open(os.path.join(sys.argv[1], f"record-{worker.rank()}"), "w") as file:
    json.dump(record, file)
"""


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def records(folder: str) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("record-*"))]


def test_a_function_of_a_module(method: str) -> None:
    found = launch(worker_functions.rank_and, [1, "two"], nproc=2, start_method=method)
    assert found == {0: (0, [1, "two"]), 1: (1, [1, "two"])}


def test_a_lambda(method: str) -> None:
    found = launch(lambda a, b: (a, b), 40, "at ${local_rank}", nproc=2, start_method=method)
    assert found == {0: (40, "at 0"), 1: (40, "at 1")}


def test_a_closure(method: str) -> None:
    offset = 40

    def add(value: int) -> int:
        return offset + value

    assert launch(add, 2, start_method=method) == {0: 42}


def test_a_reference(method: str) -> None:
    assert launch(f"{FUNCTIONS}:rank_and", {"a": 1}, start_method=method) == {0: (0, {"a": 1})}


def test_a_script_with_arguments(method: str, tmp_path: Path, folder: str) -> None:
    script = tmp_path / "scripts" / "train.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    args = [folder, "--lr", 0.5, "--local-rank=${local_rank}"]
    found = launch(str(script), *args, nproc=2, start_method=method)
    assert found == {0: None, 1: None}
    for rank, record in enumerate(records(folder)):
        assert record == {
            "argv": [folder, "--lr", "0.5", f"--local-rank={rank}"],
            "name": "__main__",
            "file": str(script),
            "path": str(script.parent),
            "rank": rank,
            "main": True,
        }


def test_a_module(
    method: str, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text("from . import beside" + SCRIPT)
    (package / "beside.py").touch()
    monkeypatch.chdir(tmp_path)
    assert launch("-m package.train", folder, "x", start_method=method) == {0: None}
    args = [folder, "y${local_rank}"]
    assert launch("-m", "package.train", *args, start_method=method) == {0: None}
    (record,) = records(folder)
    assert (record["argv"], record["name"]) == ([folder, "y0"], "__main__")


def test_a_command(method: str, folder: str) -> None:
    code = f'echo "$RANK of $WORLD_SIZE: $1" > {folder}/said-$RANK'
    args = ["-c", code, "sh", "hello ${local_rank}"]
    found = launch("sh", *args, nproc=2, start_method=method)
    assert found == {0: None, 1: None}
    said = [path.read_text() for path in sorted(Path(folder).glob("said-*"))]
    assert said == ["0 of 2: hello 0\n", "1 of 2: hello 1\n"]


MAIN = """
import os, sys
from llutil.launcher.launch_agent import LaunchConfig, launch_agent

GREETING = "hello from"
class Rank:
    def __init__(self, number):
        self.number = number
    def __repr__(self):
        return f"rank {self.number}"
def greet(name):
    flags = sys.argv[1:], sys.flags.optimize, sys.warnoptions, sys.stdin.read()
    return f"{GREETING} {name} {Rank(os.environ['RANK'])}", flags
for method in ("spawn", "fork", "forkserver"):
    print(launch_agent(LaunchConfig(1, 1, 2, start_method=method), greet, ["main"]))
"""


def test_a_function_of_the_callers_main_script_which_needs_no_guard_and_has_its_command_line(
    tmp_path: Path,
) -> None:
    """multiprocessing's spawn would run the script again, and again. What comes from standard input
    is for no rank if there are several.
    """
    (tmp_path / "main.py").write_text(MAIN)
    done = subprocess.run(
        [sys.executable, "-O", "-Werror::UserWarning", tmp_path / "main.py", "--lr", "0.5"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        input="a line",
        check=False,
    )
    assert done.stderr == ""
    flags = ["--lr", "0.5"], 1, ["error::UserWarning"], ""
    expected = {rank: (f"hello from main rank {rank}", flags) for rank in (0, 1)}
    assert done.stdout == f"{expected}\n" * 3


def test_results_come_in_rank_order_whoever_returns_first(folder: str) -> None:
    assert list(launch(worker_functions.finish_in_reverse_order, folder, nproc=3)) == [0, 1, 2]


def test_a_job_at_the_default_interval_of_30_s_ends_when_it_has_ended() -> None:
    started = time.monotonic()
    assert launch_agent(LaunchConfig(1, 1, 1), worker_functions.rank_and, [7]) == {0: (0, 7)}
    assert time.monotonic() - started < 25


def test_that_fork_copies_the_stores_password_is_told_once_in_a_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    build_starter.warn_of_fork.cache_clear()
    login = {"rdzv_configs": {"user": "ann", "password": "hidden-word"}}
    for method, warnings in (("spawn", 0), ("fork", 1), ("fork", 1)):
        assert launch(worker_functions.rank_and, 1, start_method=method, **login) == {0: (0, 1)}
        assert len([text for text in caplog.messages if "the store's password" in text]) == warnings
    assert "hidden" not in caplog.text


def test_launching_in_two_steps_is_the_same() -> None:
    assert elastic_launch(config(), worker_functions.rank_and)(7) == {0: (0, 7)}


def test_the_page_may_be_the_callers(folder: str) -> None:
    def report(folder: str) -> bool:
        from llutil import worker

        worker.progress(3, 4)
        worker.events().paused.set()
        return worker.events().stop_all_tasks.is_set()

    with Events() as events:
        events.stop_all_tasks.set()
        assert launch_agent(config(), report, [folder], events) == {0: True}
        assert events.progress() == {0: (3, 4)}
        assert events.paused.is_set()
        assert Path(events.path).exists()


def test_a_worker_has_torchs_environment(method: str) -> None:
    found = launch(
        worker_functions.environment, nproc=2, start_method=method, role="trainer", max_restarts=2
    )
    for rank, env in found.items():
        assert {name: env[name] for name in ENVIRONMENT} == ENVIRONMENT | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "ROLE_RANK": str(rank),
        }
        assert env["MASTER_ADDR"] == "127.0.0.1"
        assert 0 < int(env["MASTER_PORT"]) < 65536
        assert env["TORCHELASTIC_RUN_ID"].startswith("run-")


ENVIRONMENT = {
    "RANK": "",
    "LOCAL_RANK": "",
    "ROLE_RANK": "",
    "ROLE_NAME": "trainer",
    "GROUP_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "1",
    "ROLE_WORLD_SIZE": "2",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "OMP_NUM_THREADS": "1",
}


def test_a_thread_limit_of_the_users_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch(worker_functions.environment, nproc=2)[0]["OMP_NUM_THREADS"] == "3"


def test_the_run_id_is_the_configurations_or_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLUTIL_RUN_ID", "from-the-environment")
    assert launch(worker_functions.environment)[0]["TORCHELASTIC_RUN_ID"] == "from-the-environment"
    assert launch(worker_functions.environment, run_id="mine")[0]["TORCHELASTIC_RUN_ID"] == "mine"


def test_a_worker_finds_modules_beside_the_script_and_not_the_callers_folder_first(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A json.py in the working directory must not take the place of the library's."""
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "train.py").write_text(f"import beside\nbeside.save({folder!r})")
    (tmp_path / "here" / "beside.py").write_text(
        "import pathlib\ndef save(folder): pathlib.Path(folder, 'record-0').write_text('{}')"
    )
    monkeypatch.chdir(tmp_path)
    launch("here/train.py")
    assert records(folder) == [{}]


def test_a_safe_path_does_not_cost_the_first_folder_of_pythonpath(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "precious.py").touch()
    (tmp_path / "train.py").write_text("import precious")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    assert launch(str(tmp_path / "train.py")) == {0: None}


def test_a_script_may_use_multiprocessing_of_its_own(tmp_path: Path, folder: str) -> None:
    (tmp_path / "train.py").write_text(
        "import multiprocessing, pathlib, sys\n"
        "def square(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        found = pool.map(square, [1, 2, 3])\n"
        "    pathlib.Path(sys.argv[1], 'record-0').write_text(str(found))\n"
    )
    launch(str(tmp_path / "train.py"), folder)
    assert records(folder) == [[1, 4, 9]]


def test_a_script_that_is_made_executable_is_a_command(tmp_path: Path, folder: str) -> None:
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\necho "[]" > $1/record-$RANK\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    assert launch(str(script), folder) == {0: None}
    assert records(folder) == [[]]


def test_as_many_workers_as_there_are_cpus() -> None:
    found = launch_agent(LaunchConfig(1, 1, "cpu"), worker_functions.rank_and, [None])
    assert list(found) == list(range(len(os.sched_getaffinity(0))))


def test_a_reference_is_imported_in_the_worker_alone(folder: str) -> None:
    assert launch("os:getpid")[0] != os.getpid()
    with pytest.raises(ConfigError):
        launch(None)
