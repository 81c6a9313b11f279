"""The exit status of ``sys.exit`` is plain Python's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llutil.agent.worker_side.system_exit import exit_status

CODES = ["", "None", "0", "False", "True", "138", "-1", "256", "1 << 40", "1 << 80", "'no data'"]
ENUM = "__import__('signal').SIGTERM"


@pytest.mark.parametrize("code", [*CODES, "''", "(1, 2)", "1.0", ENUM])
def test_it_is_the_status_that_python_ends_with_and_prints_what_python_prints(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call = f"import sys; sys.exit({code})"
    plain = subprocess.run(
        [sys.executable, "-I", "-S", "-c", call], capture_output=True, text=True, check=False
    )
    with pytest.raises(SystemExit) as raised:
        exec(call)
    assert exit_status(raised.value) == plain.returncode
    said = plain.stderr
    if code == "1 << 80" and said.endswith("int too large to convert to C long\n"):
        said = ""  # since Python 3.12 it complains of its own conversion
    assert capsys.readouterr().err == said


def test_what_cannot_be_printed_hides_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert exit_status(SystemExit("text")) == 1
