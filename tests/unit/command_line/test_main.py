from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llutil.command_line.main import main, parser

COMMANDS = ("ps", "doctor", "status", "stacks", "pause", "resume", "checkpoint", "stop")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"examples:\n  llutil {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["explode"], ["status"], ["pause", "a", "b"]])
def test_a_wrong_use_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: llutil" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_an_unknown_run_ends_with_1(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "no-such-run"]) == 1
    assert f"llutil {command}: no run 'no-such-run' of this user on this host" in (
        capsys.readouterr().err
    )


def test_every_command_has_a_function_and_json() -> None:
    for command in COMMANDS:
        given = parser(runs=False).parse_args(
            [command, *(["run"] if command not in COMMANDS[:2] else []), "--json"]
        )
        assert given.json
        assert callable(given.function)


def test_what_asks_an_agent_imports_no_torch_and_no_clients_of_stores() -> None:
    code = """
import sys
from llutil.command_line.main import main
assert main(["ps"]) == 0
assert main(["status", "no-such-run"]) == main(["stop", "no-such-run"]) == 1
heavy = {"torch", "numpy", "grpc", "kazoo", "etcd3", "airflow", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "code"), [("ps >&-", 0), ("ps 2>&-", 0), ("status no-such-run >&- 2>&-", 1)]
)
def test_standard_streams_may_be_closed(words: str, code: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m llutil {words}', sys.executable],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, b"")


def test_a_closed_pipe_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from llutil.command_line.main import main; sys.exit(main(['ps']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_letter_that_the_terminal_lacks_is_shown_as_python_writes_it() -> None:
    code = "from llutil.command_line.main import console; console()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--log-dir", "/proc/\u0142"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1:strict"},
        capture_output=True,
        check=False,
    )
    assert b"/proc/\\u0142" in done.stdout
    assert not done.stderr
