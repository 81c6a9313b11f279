"""An agent server ends when it should, leaves nothing, and costs a task nothing if it does not
serve.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from llutil.agent_server import client
from llutil.agent_server.client import ForkedAgent, NotForkedError, ancestors
from llutil.agent_server.place import servers
from llutil.agent_server.shown_memory import ROOM_VARIABLE
from llutil.system.exit_status import EXIT_UNKNOWN
from tests.support.agent_servers import SECONDS, Server, ended, start_of, wait_for
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork

_WAITS = "import os, sys; os.write(int(sys.argv[2]), b'!'); os.read(int(sys.argv[1]), 1)"


def waiting(server: Server) -> tuple[ForkedAgent, int]:
    """An agent that runs, until the descriptor is closed."""
    read, write = os.pipe()
    began, begins = os.pipe()
    agent = server.fork(_WAITS, str(read), str(begins), fds={read: read, begins: begins})
    os.close(read)
    os.close(begins)
    with os.fdopen(began, "rb") as pipe:
        assert pipe.read(1) == b"!"
    return agent, write


def asks_for_nothing(server: Server, data: bytes = b"?") -> None:
    """Somebody sends what is no order, and hears that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(server.place.path))
        if data:
            stranger.send(data)
            stranger.settimeout(SECONDS)
            assert b"refused" in stranger.recv(4096)


def _is_there(pidfd: int) -> bool:
    """Whether the process has not been reaped: a zombie takes signals."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_ends_when_it_has_been_idle_and_leaves_nothing(idle_server: Server) -> None:
    assert idle_server.begin(idle=0.2).wait(SECONDS) == 0
    assert idle_server.files() == []
    assert not idle_server.place.path.parent.exists()
    with pytest.raises(NotForkedError) as none:
        idle_server.fork("")
    assert none.value.absent


def test_it_is_not_idle_while_an_agent_runs(idle_server: Server, tmp_path: Path) -> None:
    impatient = tmp_path / "impatient"
    (tmp_path / "idle_time.py").write_text(
        "import pathlib\n"
        "from llutil.agent_server.server import AgentServer\n"
        f"impatient = pathlib.Path({str(impatient)!r})\n"
        "AgentServer._idle = property(\n"
        "    lambda _: 0.2 if impatient.exists() else 600.0, lambda *_: None)\n"
    )
    idle_server.env |= {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "idle_time"}
    idle_server.start()
    agent, write = waiting(idle_server)
    impatient.touch()  # not before there is the agent
    asks_for_nothing(idle_server)  # it begins another wait
    assert idle_server.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        idle_server.process.wait(0.5)
    assert idle_server.place.path.exists(), "it takes orders"
    os.close(write)
    assert wait_for(agent) == 0
    assert idle_server.ends() == 0


def test_it_may_be_kept_for_longer_than_the_kernel_waits(idle_server: Server) -> None:
    idle_server.start(idle=1e9)
    agent, write = waiting(idle_server)
    os.close(write)
    assert wait_for(agent) == 0
    assert wait_for(idle_server.fork("raise SystemExit(3)")) == 3


def test_it_knows_how_agents_end_where_an_ignored_sigchld_was_inherited(
    idle_server: Server,
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        idle_server.start()
        with pytest.raises(NotForkedError, match="the task's process has other values of SigIgn"):
            wait_for(idle_server.fork(""))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert wait_for(idle_server.fork("raise SystemExit(3)")) == 3


def test_it_ends_with_a_process_that_it_depends_on(idle_server: Server) -> None:
    worker = subprocess.Popen(["sleep", "600"])
    idle_server.start(watch=f"{worker.pid}:{start_of(worker.pid)}")
    assert wait_for(idle_server.fork("")) == 0
    worker.kill()
    assert idle_server.ends() == 0
    assert idle_server.files() == []
    worker.wait()


@pytest.mark.parametrize("what", ["gone", "another"])
def test_it_ends_at_once_if_that_process_has_ended_before(idle_server: Server, what: str) -> None:
    worker = subprocess.Popen(["sleep", "600"])
    start = start_of(worker.pid)
    if what == "gone":
        worker.kill()
        worker.wait()
    assert idle_server.begin(watch=f"{worker.pid}:{start - 1}").wait(SECONDS) == 0
    assert idle_server.files() == []
    worker.kill()
    worker.wait()


def test_sigterm_ends_it_with_its_last_agent_whose_end_is_told(server: Server) -> None:
    agent, write = waiting(server)
    server.signal(signal.SIGTERM)
    while server.files():  # it may not have seen the signal yet
        with suppress(NotForkedError):
            wait_for(server.fork(""))
    with pytest.raises(NotForkedError) as none:
        server.fork("")
    assert none.value.absent
    assert agent.poll() is None
    os.close(write)
    assert wait_for(agent) == 0
    assert server.ends() == 0


def test_a_file_that_has_changed_ends_it(idle_server: Server, tmp_path: Path) -> None:
    idle_server.env["PYTHONPATH"] = str(tmp_path)
    idle_server.start()
    assert wait_for(idle_server.fork("")) == 0
    (tmp_path / "platform.py").touch()
    with pytest.raises(NotForkedError, match=f"{tmp_path} has changed since it was imported"):
        idle_server.fork("")
    assert idle_server.ends() == 0


def test_it_does_not_fork_beside_a_second_thread(idle_server: Server, tmp_path: Path) -> None:
    (tmp_path / "starts_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    idle_server.env |= {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "starts_thread"}
    assert idle_server.begin().wait(SECONDS) == 1
    assert "its imports have started threads: it has 2" in idle_server.place.problem()
    assert idle_server.place.problem() == ""
    assert idle_server.files() == []


def test_why_it_could_not_start_is_told_once(idle_server: Server) -> None:
    idle_server.env["PYTHONSTARTUP"] = "no_such_module"
    assert idle_server.begin().wait(SECONDS) == 1
    assert "No module named 'no_such_module'" in idle_server.place.problem()
    assert idle_server.place.problem() == ""


def test_there_is_one_of_a_kind(server: Server) -> None:
    others = [server.begin() for _ in range(3)]
    assert [other.wait(SECONDS) for other in others] == [0, 0, 0]
    assert wait_for(server.fork("")) == 0
    assert server.process is not None
    assert servers(server.place.path.parent) == {server.place.path: server.process.pid}


def test_agents_outlive_a_server_that_is_killed_and_it_is_replaced(server: Server) -> None:
    agent, write = waiting(server)
    server.signal(signal.SIGKILL)
    server.ends()
    assert agent.poll() is None
    with pytest.raises(NotForkedError) as none:
        server.fork("")
    assert none.value.absent
    # A dead socket is no server.
    assert server.place.path.exists()
    server.place.path.unlink()
    server.start()
    assert wait_for(server.fork("")) == 0
    os.close(write)
    assert wait_for(agent) == EXIT_UNKNOWN


def test_one_that_is_killed_while_it_imports_is_replaced(
    idle_server: Server, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "waits.py").write_text(f"open({str(tmp_path / 'fifo')!r}).read()\n")
    idle_server.env |= {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "waits"}
    first = idle_server.begin()
    with (tmp_path / "fifo").open("w"):  # now it imports
        with pytest.raises(NotForkedError) as none:
            idle_server.fork("")
        assert none.value.absent
        first.kill()
        assert first.wait(SECONDS) == -signal.SIGKILL
    del idle_server.env["PYTHONSTARTUP"]
    idle_server.start()
    assert wait_for(idle_server.fork("")) == 0


def test_one_that_is_stopped_is_not_waited_for(server: Server) -> None:
    server.signal(signal.SIGSTOP)
    assert server.process is not None
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
    with pytest.raises(NotForkedError, match=f"process {server.process.pid} is stopped"):
        server.fork("")
    server.signal(signal.SIGCONT)
    assert wait_for(server.fork("")) == 0


def test_an_order_that_was_given_up_is_not_carried_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.signal(signal.SIGSTOP)
    with monkeypatch.context() as patches:
        patches.setattr(client, "stat_of", lambda _: None)
        patches.setattr(client, "_ANSWER_TIMEOUT", 0.01)
        with pytest.raises(NotForkedError, match="has not answered within"):
            server.fork(f"open({str(tmp_path / 'late')!r}, 'w')")
    server.signal(signal.SIGCONT)
    # Orders are carried out in turn, and a server ends with its last agent.
    assert wait_for(server.fork("")) == 0
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    assert not (tmp_path / "late").exists()


@pytest.fixture
def slow_forks(idle_server: Server, tmp_path: Path) -> Path:
    """The file that says how many seconds a fork takes to its session, if it is there. Without a
    number, a fork never comes there, and the server gives it up sooner than it does for users.
    """
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "slow_forks.py").write_text(
        "import os, pathlib, time\n"
        "from llutil.agent_server import server\n"
        f"slow = pathlib.Path({str(tmp_path / 'slow')!r})\n"
        "setsid, is_closed_within = os.setsid, server._is_closed_within\n"
        "def patience(fd, seconds):\n"
        "    stuck = slow.exists() and not slow.read_text()\n"
        "    return is_closed_within(fd, 0.2 if stuck else seconds)\n"
        "def slow_setsid():\n"
        "    if slow.exists():\n"
        "        time.sleep(float(slow.read_text() or 600))\n"
        "    setsid()\n"
        "os.setsid, server._is_closed_within = slow_setsid, patience\n"
    )
    idle_server.env |= {"PYTHONPATH": str(tmp_path / "code"), "PYTHONSTARTUP": "slow_forks"}
    return tmp_path / "slow"


def test_a_fork_that_comes_to_no_session_of_its_own_is_ended_and_hinders_nobody(
    idle_server: Server, slow_forks: Path
) -> None:
    idle_server.start()
    assert idle_server.process is not None
    pid = idle_server.process.pid
    slow_forks.touch()
    with pytest.raises(NotForkedError, match="no session of its own after"):
        idle_server.fork("")
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
    slow_forks.unlink()
    assert wait_for(idle_server.fork("")) == 0


def test_a_machine_that_stalls_for_a_second_costs_no_forked_agent(
    idle_server: Server, slow_forks: Path
) -> None:
    idle_server.start()
    slow_forks.write_text("1.1")
    assert wait_for(idle_server.fork("")) == 0


def test_an_exit_status_that_is_told_a_second_late_is_known(server: Server) -> None:
    agent, write = waiting(server)
    server.signal(signal.SIGSTOP)
    later = threading.Timer(1.1, server.signal, (signal.SIGCONT,))
    os.close(write)
    assert ended(agent.pidfd)
    later.start()
    try:
        assert wait_for(agent) == 0
    finally:
        later.join()


def test_an_agent_whose_end_a_stopped_server_does_not_tell_has_ended_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, write = waiting(server)
    server.signal(signal.SIGSTOP)
    monkeypatch.setattr(client, "_ANSWER_TIMEOUT", 0.01)
    os.close(write)
    assert wait_for(agent) == EXIT_UNKNOWN


def test_an_agent_is_reaped_although_its_task_is_gone(server: Server) -> None:
    agent, write = waiting(server)
    os.close(write)
    assert ended(agent.pidfd)
    pidfd = os.dup(agent.pidfd)
    agent.close()
    with os.fdopen(pidfd):
        while _is_there(pidfd):
            wait_for(server.fork(""))
    assert wait_for(server.fork("")) == 0


def test_orders_that_come_together_are_all_carried_out(server: Server) -> None:
    agents = [waiting(server) for _ in range(5)]
    assert len({agent.pid for agent, _ in agents}) == 5
    for agent, write in agents:
        os.close(write)
        assert wait_for(agent) == 0


@pytest.mark.parametrize("data", [b"", b"!", b"?", b"GET / HTTP/1.1"])
def test_what_is_no_order_hinders_nobody(server: Server, data: bytes) -> None:
    asks_for_nothing(server, data)
    assert wait_for(server.fork("")) == 0


def test_one_that_waits_before_it_orders_hinders_nobody(server: Server) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(server.place.path))
        assert wait_for(server.fork("")) == 0


def test_it_has_nothing_of_a_tasks_environment_and_no_descriptor_of_an_agents(
    idle_server: Server,
) -> None:
    idle_server.env["AIRFLOW_CONN_STORE"] = "secret"
    idle_server.start()
    agent, write = waiting(idle_server)
    os.close(write)
    wait_for(agent)
    agent, write = waiting(idle_server)  # by now it has nothing of the last one
    assert idle_server.process is not None
    folder = Path("/proc", str(idle_server.process.pid))
    shown = (folder / "environ").read_text()
    assert ROOM_VARIABLE in shown
    assert "secret" not in shown
    held = [str(fd.readlink()) for fd in (folder / "fd").iterdir()]
    assert not [one for one in held if "memfd" in one]
    assert len([one for one in held if one.startswith("socket")]) == 2  # the agent's, and its own
    assert len([one for one in held if one.startswith("pipe")]) == 2  # both are its own
    os.close(write)
    wait_for(agent)


def test_another_users_server_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(NotForkedError, match=r"is served by user \d+$"):
        server.fork("")


def test_a_server_depends_on_the_processes_above_its_tasks_supervisor() -> None:
    above = [pid for pid, _ in ancestors()]
    assert os.getpid() not in above
    assert 1 not in above
    assert not above or above == [pid for pid in above if start_of(pid)]


def test_an_order_reaches_a_working_directory_or_is_not_sent(server: Server) -> None:
    with pytest.raises(NotForkedError, match="No such file"):
        server.fork("", cwd="/no/such/folder")


@in_a_fork
def test_a_task_keeps_no_descriptor(server: Server) -> None:
    before = open_descriptors()
    wait_for(server.fork(""))
    with pytest.raises(NotForkedError):
        server.fork("", env={"TZ": "x"})
    assert open_descriptors() == before
