"""`llutil run` does what torch's tests of torchrun check (its run_test and launch_test).

It runs in this process, which has torch imported; ranks find none. What its options mean for a
launch is in the unit tests.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from llutil.command_line.main import main
from tests.support.etcd_servers import EtcdServer

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

SCRIPT = """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ROLE_NAME", "TORCHELASTIC_RUN_ID",
         "TORCHELASTIC_ERROR_FILE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
place = os.path.join(os.environ["PLACE"], os.environ["RANK"])
told = {name: os.environ[name] for name in names}
told |= {"argv": sys.argv, "name": __name__, "executable": sys.executable}
with open(place, "w") as file:
    json.dump(told, file)
print("out of", os.environ["RANK"])
print("err of", os.environ["RANK"], file=sys.stderr)
if "--fail" in sys.argv:
    sys.exit(7)
"""

Ran = Callable[[], list[dict[str, object]]]


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What each rank has found."""
    place = tmp_path / "ran"
    place.mkdir()
    monkeypatch.setenv("PLACE", str(place))

    def ran() -> list[dict[str, object]]:
        files = sorted(place.iterdir())
        found = [json.loads(file.read_text()) for file in files]
        for file in files:
            file.unlink()
        return found

    return ran


def test_a_script_with_its_arguments_on_four_ranks(script: str, ran: Ran) -> None:
    assert main(["run", "--nproc-per-node=4", "--role", "digits", script, "--nnodes", "9"]) == 0
    ranks = ran()
    assert [one["RANK"] for one in ranks] == ["0", "1", "2", "3"]
    assert {one["WORLD_SIZE"] for one in ranks} == {"4"}
    assert {one["ROLE_NAME"] for one in ranks} == {"digits"}
    assert ranks[0]["argv"] == [script, "--nnodes", "9"]
    assert ranks[0]["name"] == "__main__"
    assert str(ranks[0]["TORCHELASTIC_RUN_ID"]).startswith("train+")


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        (["--standalone", "--nnodes", "1:3"], None),
        (["--run-path"], None),
        (["--start-method", "fork"], None),
        (["--master-addr", "localhost", "--master-port", "0"], None),
        (["-m"], "train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_ways_to_run_it(
    script: str, ran: Ran, options: list[str], argv: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(script).parent)
    assert main(["run", *options, argv or script, "a"]) == 0
    (rank,) = ran()
    assert rank["WORLD_SIZE"] == "1"
    assert rank["name"] == "__main__"
    assert rank["argv"] == [script, "a"]


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--fail"], 7)])
def test_the_exit_code_is_the_jobs_where_nobody_can_read_its_lines(
    script: str, ran: Ran, words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full[0])
        patch.setattr(sys, "stderr", full[1])
        assert main(["run", "--tee", "3", script, *words]) == code
    for stream in full:
        with suppress(OSError):
            stream.close()
    assert len(ran()) == 1


def test_a_program_and_another_interpreter(
    script: str, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "train.sh"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert main(["run", "--no-python", "--nproc-per-node", "2", str(program), "b"]) == 0
    assert [one["argv"] for one in ran()] == [[script, "b"], [script, "b"]]
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PYTHON_EXEC", str(python))
    assert main(["run", script, "c"]) == 0
    assert [one["executable"] for one in ran()] == [str(python)]


def test_variables_in_place_of_options(
    script: str, ran: Ran, monkeypatch: pytest.MonkeyPatch, shared_etcd: EtcdServer
) -> None:
    variables = {
        "PET_NNODES": "1:2",
        "PET_NPROC_PER_NODE": "2",
        "PET_RDZV_BACKEND": "etcd",
        "PET_RDZV_ENDPOINT": str(shared_etcd.endpoint),
        "PET_RDZV_ID": f"run-{os.getpid()}",
        "PET_RDZV_CONF": "last_call_timeout=0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["run", script]) == 0
    assert [one["TORCHELASTIC_RUN_ID"] for one in ran()] == 2 * [f"run-{os.getpid()}"]


def test_output_goes_where_it_is_wanted(
    script: str, ran: Ran, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    options = ["--nproc-per-node", "2", "--log-dir", str(logs), "-r", "0:3", "-t", "1:1"]
    assert main(["run", *options, "--local-ranks-filter", "1", script]) == 0
    printed = capfd.readouterr()
    assert "[default1]:out of 1" in printed.out
    assert "out of 0" not in printed.out
    files = {path.relative_to(path.parents[2]).as_posix() for path in logs.glob("*/*/*/*.log")}
    assert {"attempt_0/0/stdout.log", "attempt_0/0/stderr.log", "attempt_0/1/stdout.log"} <= files


def test_a_failed_rank_gives_its_exit_code_and_a_report(
    script: str, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert main(["run", "--max-restarts", "1", script, "--fail"]) == 7
    (rank,) = ran()
    assert rank["TORCHELASTIC_RESTART_COUNT"] == "1"
    assert "train.py failed: rank 0: exit code 7" in capfd.readouterr().err
    assert main(["run", "--no-python", "sh", "-c", "kill -9 $$"]) == 137


def test_what_cannot_be_run_is_a_wrong_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-such-script.py"]) == 2
    assert "llutil run: script 'no-such-script.py' does not exist" in capfd.readouterr().err
    assert main(["run", "--nnodes", "2", "--rdzv-backend", "etcd", "t.py"]) == 2
    assert "  - --rdzv-id is missing: " in capfd.readouterr().err
