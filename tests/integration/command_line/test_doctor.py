"""`llutil doctor` looks at this very host and at a real store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llutil.command_line.main import main
from tests.support.etcd_servers import EtcdServer

pytestmark = [pytest.mark.usefixtures("no_torch")]

CPU = ("--nproc-per-node", "cpu")  # nothing is asked of torch


def test_a_host_and_a_store_that_will_do(
    shared_etcd: EtcdServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--rdzv-endpoint", str(shared_etcd.endpoint), "--checkpoint-path", str(tmp_path))
    assert main(["doctor", *CPU, *place, "--json"]) == 0
    found = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
    good = ("llutil", "torch", "ranks", "open files", "socket", "checkpoints", "store")
    assert {name: found[name]["grade"] for name in good} == dict.fromkeys(good, "ok")
    assert "can be used: wrote and read a record in" in found["store"]["text"]
    assert found["address"]["grade"] == "warning"  # etcd is on loopback
    assert "where no other host finds it; give rdzv_endpoint" in found["address"]["text"]


def test_what_would_ruin_a_run_is_an_error_and_the_exit_code_is_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--checkpoint-path", "/proc/nowhere", "--rdzv-endpoint", "e:1", "--rdzv-conf", "a=b"]
    assert main(["doctor", *CPU, *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("error     checkpoints   checkpoint_path is")]
    (store,) = [line for line in lines if line.startswith("error     store")]
    assert "--rdzv-conf has 'a', which backend 'etcd' does not know" in store


@pytest.mark.parametrize("scheme", ["memory", "no-such-scheme"])
def test_a_path_that_a_run_refuses_for_its_password_is_refused_and_not_shown(
    scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *CPU, "--checkpoint-path", f"{scheme}://me:secret@store/ck"]) == 1
    shown = capsys.readouterr().out
    assert f"checkpoint_path is {scheme}://... with a password in it" in shown
    assert "secret" not in shown


def test_a_torch_that_cannot_be_imported_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--nproc-per-node", "2"]) == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if " ranks " in one]
    assert "torch cannot be imported: ImportError: no torch in this world" in line
