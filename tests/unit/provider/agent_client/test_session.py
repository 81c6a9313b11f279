"""What a task hears of its agent, however it is interrupted; the agent is played."""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider.agent_client import session as session_module
from airflow_provider.agent_client.log_relay import LogRelay
from airflow_provider.agent_client.session import AgentSession
from llutil.entrypoint import Command
from llutil.errors import ConfigError, ResultError
from llutil.failure import FailureClass
from llutil.launcher.config import LaunchConfig
from llutil.progress.log_lines import ProgressLines
from llutil.task_link.messages import (
    VERSION,
    Hello,
    JobSucceeded,
    LedgerServed,
    OutputLines,
    Result,
    RoundBegan,
    Spec,
    encode,
)

SPEC = Spec(
    config=LaunchConfig(1, 1, 1),
    entrypoint=Command("x"),
    result_limit=100,
    orphan_log="/dev/null",
)
HELLO = Hello(1, "python")
SUCCEEDED = JobSucceeded((0,))


class Alarm(BaseException):
    """What Airflow's alarm raises is no Exception either."""


class Log:
    """A log; the alarm comes while it writes the line ``alarmed_by``."""

    def __init__(self, alarmed_by=None):
        self.lines = []
        self.alarmed_by = alarmed_by

    def log(self, _level, text):
        alarmed, self.alarmed_by = (
            text == self.alarmed_by,
            text != self.alarmed_by and self.alarmed_by,
        )
        if alarmed:
            raise Alarm
        self.lines += text.splitlines()


class PlayedAgent:
    """An agent that is going to say what it is told to."""

    pid, python = 1, "python"

    def __init__(self):
        self.socket, self.task = socket.socketpair()
        self.socket.setblocking(False)
        reader, self.stderr = os.pipe()
        self.pipes = {"stderr": reader}
        self.exit_code = None

    def say(self, *messages):
        for one in messages:
            self.task.sendall(one if isinstance(one, bytes) else encode(one))

    def end(self):
        """Close its ends, as the kernel does when it ends."""
        if self.exit_code is None:
            self.exit_code = 0
            self.task.close()
            os.close(self.stderr)

    def poll(self):
        return self.exit_code

    def close(self):
        self.end()
        self.socket.close()
        os.close(self.pipes.popitem()[1])


class Played:
    """A session whose spec is sent."""

    def __init__(self, log=None, **callbacks):
        self.log = log or Log()
        self.agent = PlayedAgent()
        self.session = AgentSession(
            self.agent, LogRelay(self.log, ProgressLines(print)), SPEC, **callbacks
        )
        while self.session._outgoing:
            self.session.step(0)

    def run(self):
        """Relay to the end, as the hook does, the agent having ended. Returns the outcome."""
        self.agent.end()
        self.relay()
        return self.session.outcome(None)

    def relay(self):
        try:
            self._relay()
        except Alarm:
            self.session.interrupted()
            self._relay()

    def _relay(self):
        for _ in range(100):
            self.session.step(0)
            self.agent.end()
            if self.session.ended:
                return
        raise AssertionError("it does not end")

    def close(self):
        if self.agent.pipes:
            self.session.close()


@pytest.fixture
def played():
    """Makes a session."""
    made = []

    def make(log=None, **callbacks):
        made.append(Played(log, **callbacks))
        return made[-1]

    yield make
    for one in made:
        one.close()


def printed(text):
    return OutputLines(rank=0, stream="stdout", text=text)


def test_an_alarm_in_one_message_loses_no_other_one(played):
    job = played(Log(alarmed_by="[rank 0] epoch 9"))
    job.agent.say(HELLO, printed("epoch 9"), printed("bye"), Result(0, 42), SUCCEEDED)
    os.write(job.agent.stderr, b"a warning\nanother\n")
    assert job.run() == {0: 42}
    assert sorted(job.log.lines) == ["[agent] a warning", "[agent] another", "[rank 0] bye"]


def test_an_alarm_in_a_line_of_the_agents_own_loses_no_other_one(played):
    job = played(Log(alarmed_by="[agent] a warning"))
    os.write(job.agent.stderr, b"a warning\nanother\nthe last")
    job.agent.say(HELLO, Result(0, 42), SUCCEEDED)
    assert job.run() == {0: 42}
    assert job.log.lines == ["[agent] another", "[agent] the last"]


def test_what_raises_each_time_is_not_called_again_with_the_same_message(played):
    asked = []

    def refuse(endpoint):
        asked.append(endpoint)
        raise Alarm

    job = played(on_ledger=refuse)
    job.agent.say(HELLO, LedgerServed("host:1"), Result(0, 42), SUCCEEDED)
    assert job.run() == {0: 42}
    assert asked == ["host:1"]


def alarmed_after(count, files, run):
    """Call ``run``; an alarm comes before the instruction of that number of all those in ``files``.
    Returns whether there were so many.
    """
    left = count

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Alarm
        return trace

    def traced():
        sys.settrace(trace)
        run()

    # In a thread of its own: an exception that is raised between two instructions of an ``except``
    # may leave the one that was caught there as the context of all later ones of its thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(traced).result()
    return left <= 0


def test_an_alarm_at_any_instruction_loses_no_result_one_line_at_most_and_repeats_none(played):
    folder = Path(session_module.__file__).parent
    own = ("session.py", "printed_lines.py", "reported_end.py")
    files = {str(folder / name) for name in own}
    files.add(sys.modules["llutil.task_link.decoder"].__file__)
    lines = [f"epoch {number}" for number in range(4)]
    count, came = 0, True
    while came:
        count += 1
        job = played()
        job.agent.say(HELLO, RoundBegan(0, 1, (0,)), *map(printed, lines), Result(0, 42), SUCCEEDED)
        os.write(job.agent.stderr, b"a warning\nanother\n")
        came = alarmed_after(count, files, job.relay)
        assert job.session.outcome(None) == {0: 42}, count
        wanted = ["[agent] a warning", "[agent] another", *(f"[rank 0] {one}" for one in lines)]
        assert len(set(job.log.lines)) == len(job.log.lines), count
        assert set(job.log.lines) <= set(wanted)
        assert len([one for one in job.log.lines if "rank 0" in one]) >= len(lines) - 1, count
        assert job.session.job.world_size == 1
        job.close()
    assert count > 300


@pytest.mark.parametrize(
    "bad", [b"\xffgarbage\n", encode(SPEC), encode(Hello(1, "p", VERSION + 1))]
)
def test_after_an_alarm_a_bad_line_costs_that_line_alone(played, bad):
    job = played()
    job.session.interrupted()
    job.agent.say(HELLO, bad, Result(0, 42), SUCCEEDED)
    assert job.run() == {0: 42}


@pytest.mark.parametrize("alarmed", [False, True])
def test_without_one_a_bad_line_ends_the_job_whatever_comes_later(played, alarmed):
    job = played()
    job.agent.say(HELLO, b"garbage\n", Result(0, 42), SUCCEEDED)
    job.session.step(0)
    assert job.agent.task.recv(1000000)
    assert job.agent.task.recv(1) == b"", "it did not hang up"
    if alarmed:
        job.session.interrupted()
    with pytest.raises(ConfigError, match="not a message on the agent's socket: b'garbage'"):
        job.run()


def test_a_value_that_did_not_come_is_an_error_and_the_others_are_there(played):
    job = played()
    job.agent.say(HELLO, Result(1, None), JobSucceeded((0, 1, 2)))
    with pytest.raises(
        ResultError, match=r"only 1 of 3 ranks of this node .* missing: rank 0, 2"
    ) as caught:
        job.run()
    assert caught.value.failure_class is FailureClass.RESULT
    assert caught.value.results == {1: None}


def test_a_steer_that_comes_when_the_agent_has_just_ended_is_no_error(played):
    job = played()
    job.agent.say(HELLO, Result(0, 42), SUCCEEDED)
    poll = job.agent.poll

    def poll_late():
        job.session.steer(["pause"], "why")
        return poll()

    job.agent.poll = poll_late
    assert job.run() == {0: 42}
