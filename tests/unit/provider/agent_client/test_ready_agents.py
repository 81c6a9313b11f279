"""What a task's log says of an agent server, and that no server's trouble is the task's."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from airflow_provider.agent_client.environment import TaskPaths
from airflow_provider.agent_client.process import AgentSubprocess
from airflow_provider.agent_client.ready_agents import ReadyAgents
from llutil.agent_server.client import AgentServerPlace
from llutil.agent_server.place import write_problem
from llutil.system.exit_status import EXIT_UNKNOWN
from tests.support.agent_servers import Server, ended

_LOG = logging.getLogger("ready")
_PYTHON = sys.executable


@pytest.fixture
def lines(caplog):
    """What was logged since the last time."""
    caplog.set_level(logging.INFO, "ready")

    def taken():
        found = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    return taken


@pytest.fixture
def server(monkeypatch):
    """A server in a temporary folder of its own, which tasks have too; not started."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        found = Server(Path(folder, f"llutil-{os.geteuid()}"), {})
        yield found
        if found.process is not None and found.process.poll() is None:
            found.signal(signal.SIGKILL)
            found.ends()


def started(server, code, ready=None, **options):
    """An agent in which ``code`` runs, if the server forks it; else it ends with 3."""
    ready = ready or ReadyAgents(_PYTHON, 600.0, server.env, _LOG)
    env = {**server.env, "RUN": code, **options.pop("env", {})}
    fresh = Path(server.place.path.parent, "fresh")
    fresh.write_text("#!/bin/sh\nexit 3\n")
    fresh.chmod(0o700)
    return AgentSubprocess(str(fresh), None, env, {}, TaskPaths([], []), ready)


def end_of(agent):
    with os.fdopen(os.pidfd_open(agent.pid)) as pidfd:
        assert ended(pidfd)
    status = agent.poll()
    agent.close()
    return status


def test_where_there_is_no_server_the_agent_starts_afresh_and_nothing_is_said(server, lines):
    assert end_of(started(server, "raise SystemExit(4)")) == 3
    assert lines() == []


def test_an_agent_that_is_forked_is_talked_with_as_any_other(server, lines):
    server.start()
    code = (
        "import socket, sys; s = socket.socket(fileno=int(sys.argv[2])); "
        "s.send(s.recv(9)); print('said'); print('told', file=sys.stderr); raise SystemExit(4)"
    )
    agent = started(server, code)
    ((level, line),) = lines()
    assert (level, line) == (
        "INFO",
        f"the agent, process {agent.pid}, is a fork of the agent server, process "
        f"{server.process.pid}",
    )
    agent.socket.setblocking(True)
    agent.socket.send(b"echo")
    assert agent.socket.recv(9) == b"echo"
    printed = dict(agent.pipes)
    with os.fdopen(os.pidfd_open(agent.pid)) as pidfd:
        assert ended(pidfd)
    told = [os.read(printed[name], 9) for name in ("stdout", "stderr")]
    assert told == [b"said\n", b"told\n"]
    assert end_of(agent) == 4


def test_an_agent_that_is_forked_is_killed_as_any_other(server):
    server.start()
    agent = started(server, "import time; time.sleep(600)")
    assert agent.poll() is None
    agent.kill()  # its whole process group, which is its own by now
    assert end_of(agent) == -signal.SIGKILL
    agent.kill()
    agent.close()
    assert server.process.poll() is None


def test_the_end_of_an_agent_whose_server_is_gone_is_seen_without_its_status(server):
    server.start()
    agent = started(server, "import time; time.sleep(600)")
    server.signal(signal.SIGKILL)
    server.ends()
    agent.kill()
    assert end_of(agent) == EXIT_UNKNOWN


def test_why_an_agent_is_not_forked_is_said(server, lines):
    server.start()
    assert end_of(started(server, "", env={"TORCH_LOGS": "x"})) == 3
    pid = server.process.pid
    assert lines() == [
        (
            "INFO",
            f"the agent starts afresh; the agent server: process {pid}: the task has other values "
            "of TORCH_LOGS",
        )
    ]


def test_why_a_server_could_not_start_is_said_once(server, lines):
    write_problem(server.place.path, "ImportError: no torch\n")
    assert end_of(started(server, "")) == 3
    text = "the agent starts afresh; the agent server failed: ImportError: no torch"
    assert lines() == [("WARNING", text)]
    assert end_of(started(server, "")) == 3
    assert lines() == []


def test_a_server_is_started_after_a_task_that_found_none(server, monkeypatch):
    begun = []
    monkeypatch.setattr(AgentServerPlace, "start_server", lambda _, idle: begun.append(idle))
    ready = ReadyAgents(_PYTHON, 600.0, server.env, _LOG)
    ready.start_server()
    assert begun == []  # no agent has been asked for
    end_of(started(server, "", ready))
    ready.start_server()
    assert begun == [600.0]
    server.start()
    end_of(started(server, "", ready))
    ready.start_server()
    end_of(started(server, "", ready, env={"TORCH_LOGS": "x"}))
    ready.start_server()
    assert begun == [600.0]


def test_a_server_that_cannot_be_started_fails_no_task(server, lines, monkeypatch):
    def start(*_):
        raise OSError("no more processes")

    monkeypatch.setattr(AgentServerPlace, "start_server", start)
    ready = ReadyAgents(_PYTHON, 600.0, server.env, _LOG)
    end_of(started(server, "", ready))
    ready.start_server()
    assert lines() == [("WARNING", "no agents are kept ready: no more processes")]


@pytest.mark.parametrize("python", ["no-such-python", "./python"])
def test_an_interpreter_that_cannot_be_named_for_all_tasks_has_no_server(server, lines, python):
    ready = ReadyAgents(python, 600.0, server.env, _LOG)
    assert not ready.may_fork
    ((level, line),) = lines()
    assert level == "WARNING"
    assert line == f"no agents are kept ready: python {python!r} is no absolute path"


def test_without_the_option_nothing_is_looked_for(server, lines):
    ready = ReadyAgents(_PYTHON, 0.0, server.env, _LOG)
    assert not ready.may_fork
    ready.start_server()
    assert lines() == []
