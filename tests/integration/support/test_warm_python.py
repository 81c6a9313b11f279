"""A process that is forked with torch imported is one that was started afresh, as far as its
command can see.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.forks import in_a_fork
from tests.support.warm_python import Forked, WarmPython

pytestmark = pytest.mark.launch

_FACTS = """
import json, os, signal, sys
facts = {
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "path": sys.path,
    "environment": dict(os.environ),
    "shown": sorted(filter(None, open("/proc/self/environ").read().split(chr(0)))),
    "descriptors": [os.readlink(f"/proc/self/fd/{fd}")[:5] for fd in ("0", "2", sys.argv[1])],
    "all": [fd for fd in range(1000) if os.path.exists(f"/proc/self/fd/{fd}")],
    "leads a session": os.getsid(0) == os.getpid(),
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
    "mask": [str(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "unbuffered": sys.stdout.line_buffering or sys.stdout.write_through,
    "original argv": sys.orig_argv,
}
os.write(int(sys.argv[1]), json.dumps(facts).encode())
print("printed")
sys.exit(7)
"""


def _facts(popen: Callable[..., Any], folder: Path, option: str, what: str) -> Any:
    read, write = os.pipe()
    out = (folder / "out").open("wb")
    env = {**os.environ, "PYTHONPATH": str(folder), "MINE": "ä=b"}
    del env["TMPDIR"]
    with out, os.fdopen(read) as facts:
        process = popen(
            [sys.executable, "-u", option, what, str(write), "-x"],
            stdin=subprocess.DEVNULL,
            stdout=out.fileno(),
            stderr=out.fileno(),
            pass_fds=(write,),
            env=env,
            cwd=str(folder),
            start_new_session=True,
        )
        os.close(write)
        assert process.wait(60) == 7, (folder / "out").read_text()
        assert (folder / "out").read_text() == "printed\n"
        return json.load(facts)


@pytest.mark.parametrize(("option", "what"), [("-c", _FACTS), ("-m", "facts")], ids=["-c", "-m"])
@in_a_fork
def test_a_command_finds_what_it_finds_in_a_fresh_interpreter(
    option: str, what: str, python_with_torch: WarmPython, tmp_path: Path
) -> None:
    (tmp_path / "facts.py").write_text(_FACTS)
    fresh = _facts(subprocess.Popen, tmp_path, option, what)
    warm = _facts(python_with_torch.popen, tmp_path, option, what)
    assert warm == fresh


def _started(python: WarmPython, code: str, **options: Any) -> Any:
    fields = {"env": dict(os.environ), "start_new_session": True, "pass_fds": ()} | options
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return python.popen([sys.executable, "-u", "-c", code], **streams, **fields)


def test_its_end_is_seen_as_that_of_a_child(python_with_torch: WarmPython) -> None:
    ended = _started(python_with_torch, "import sys; sys.exit('torch' not in sys.modules)")
    assert ended.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(ended.pid, 0)
    runs = _started(python_with_torch, "import time; time.sleep(60)")
    assert runs.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        runs.wait(0.01)
    runs.kill()
    assert runs.wait(60) == -signal.SIGKILL
    assert runs.poll() == -signal.SIGKILL
    fails = _started(python_with_torch, "raise ValueError")
    assert fails.wait(60) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"env": {**os.environ, "TORCH_LOGS": "all"}},
        {"env": {**os.environ, "PYTHONHASHSEED": "1"}},
        {"cwd": "/proc"},
    ],
)
def test_what_would_start_otherwise_is_started_afresh(
    python_with_torch: WarmPython, options: dict[str, Any]
) -> None:
    process = _started(python_with_torch, "", **options)
    assert process.wait(60) == 0
    assert isinstance(process, Forked) is ("cwd" in options)


@pytest.mark.parametrize("name", ["torch.py", "sitecustomize.py", "platform.py"])
def test_a_module_that_hides_one_that_is_imported_is_found(
    python_with_torch: WarmPython, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    process = _started(python_with_torch, "", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert process.wait(60) == 0
    assert not isinstance(process, Forked)
