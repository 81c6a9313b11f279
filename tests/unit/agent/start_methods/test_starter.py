"""The command of a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[4])
NEW = (
    "import json; from llutil.agent.worker_side.work_order import read_order; "
    "print(json.dumps([sys.flags.optimize, sys.flags.no_site, sys.warnoptions, sys._xoptions]))"
)
STARTER = (
    "import os, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from llutil.agent.start_methods.starter import interpreter_command; "
    f"command = interpreter_command({NEW!r}); os.execv(command[0], command)"
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), [0, 0, [], {}]),
        (("-OO", "-Werror::UserWarning", "-Xutf8"), [2, 0, ["error::UserWarning"], {"utf8": True}]),
        (("-I", "-S", "-O", "-bb"), [1, 0, ["error::BytesWarning"], {}]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_it_has_the_flags_of_the_starters_and_finds_its_libraries(
    given: tuple[str, ...], found: list[object]
) -> None:
    run = subprocess.run(
        [sys.executable, *given, "-c", f"import json; {STARTER}", json.dumps([ROOT, *sys.path])],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert run.stderr == ""
    assert json.loads(run.stdout) == found
