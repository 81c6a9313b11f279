"""The hook and an agent: what reaches the log, how each ending is told, and that nothing is
left.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog

from airflow_provider.execution.launch import Launch
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.entrypoint import Command
from llutil.errors import (
    AgentLostError,
    ConfigError,
    RendezvousError,
    ServerLostError,
    StoppedError,
    WorkersFailedError,
)
from llutil.failure import FailureClass
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from llutil.progress.log_lines import ProgressLines
from llutil.task_link.messages import RoundBegan, Saved, Spec, Steered, Stopped
from tests.support import fake_agent
from tests.support.alarms import alarm, alarm_when
from tests.support.descriptors import no_descriptor_left
from tests.support.launches import is_alive

pytestmark = pytest.mark.fault

FAKE_AGENT = Path(fake_agent.__file__)


def spec(**config):
    return Spec(
        config=LaunchConfig(1, 1, 1, shutdown_timeout=0.2, **config),
        entrypoint=Command("x"),
        result_limit=100,
        orphan_log="/dev/null",
    )


@pytest.fixture
def any_hook_to(tmp_path):
    """Makes a hook whose agent plays the named part."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_AGENT} "$@"\n')
    interpreter.chmod(0o700)

    def make(part, **options):
        env = {"FAKE_AGENT_PART": part, **options.pop("env", {})}
        return AgentHook(python=str(interpreter), env=env, **options)

    return make


@pytest.fixture
def hook_to(any_hook_to):
    """The same; after the test no descriptor is left."""
    with no_descriptor_left():
        yield any_hook_to


@pytest.fixture
def logged():
    """What the hook logged, as pairs of level and line."""
    with structlog.testing.capture_logs() as records:
        yield lambda: [
            (record["log_level"], line)
            for record in records
            for line in record["event"].split("\n")
        ]


def test_values_come_back_in_rank_order(hook_to):
    assert hook_to("succeeds").run(spec(run_id="r")) == {0: {"run_id": "r"}, 1: None}


def test_who_wants_to_know_is_told_once_who_the_agent_is(hook_to):
    greeted = []
    hook_to("succeeds", on_hello=greeted.append).run(spec())
    (hello,) = greeted
    assert hello.python == sys.executable


class Listener:
    """Asks for a stop, in a thread of its own, once it has heard of a checkpoint."""

    def __init__(self):
        self.heard = []

    def begin(self, steer):
        self.steer = steer

    def hear(self, event):
        self.heard.append(event)
        if event == Saved(3):
            asked = (["stop_all_tasks"], "enough")
            threading.Thread(target=self.steer, args=asked).start()

    def stop_asked(self, reason):
        self.heard.append(reason)

    def end(self):
        self.heard.append("end")


def test_a_listener_hears_of_the_job_and_has_flags_raised_and_a_stopped_job_succeeds(
    hook_to, logged
):
    listener = Listener()
    assert hook_to("is_stopped_by_a_flag").run(spec(), listener=listener) == {0: 4}
    assert listener.heard == [
        RoundBegan(0, 1, (0,)),
        Saved(3),
        Steered("stop_all_tasks is asked for"),
        Stopped(4, "enough"),
        "end",
    ]
    text = "the job was stopped after step 4: enough; it ends as a success, with what its ranks "
    assert ("warning", text + "return") in logged()


def test_all_that_is_said_reaches_the_log_with_its_speaker_and_level(hook_to, logged):
    hook_to("succeeds").run(spec())
    lines = logged()
    for expected in [
        ("info", "[agent] printed by the agent"),
        ("info", "[agent] UserWarning-free stderr of the agent"),
        ("warning", "[agent] a record of the agent"),
        ("info", "[rank 0] hello from rank 0"),
        ("info", "[rank 1] chatter from rank 1"),
        ("error", "[rank 1] ValueError: trouble of rank 1"),
        ("info", "progress: rank 0 1/2 (50 %), rank 1 2/2 (100 %)"),
    ]:
        assert expected in lines


def test_where_an_agent_serves_the_ledger_is_told_while_it_runs(hook_to):
    hook = hook_to("serves")
    heard = []

    def publish(endpoint):
        heard.append(endpoint)
        hook.stop("heard enough")

    with pytest.raises(StoppedError):
        hook.run(spec(), on_ledger=publish)
    assert heard == ["10.0.0.1:5000"]


def test_a_server_that_nobody_could_be_told_of_is_stopped_and_the_task_fails_with_the_reason(
    hook_to,
):
    class NoAirflowError(Exception):
        pass

    def publish(_):
        raise NoAirflowError

    with pytest.raises(NoAirflowError):
        hook_to("serves").run(spec(), on_ledger=publish)


def test_the_agent_has_a_session_the_tasks_path_and_the_users_variables(hook_to, tmp_path):
    hook = hook_to("shows_its_environment", env={"MINE": "1"}, cwd=str(tmp_path))
    seen = hook.run(spec())[0]
    assert seen["cwd"] == str(tmp_path)
    assert seen["session"] != os.getsid(0)
    with pytest.raises(ProcessLookupError):  # it was waited for: not even a zombie is left
        os.kill(seen["session"], 0)
    assert seen["env"]["MINE"] == "1"
    assert seen["env"]["_AIRFLOW__AS_LIBRARY"] == "1"
    assert str(Path(__file__).parents[4]) in seen["path"]
    assert "PYTHONPATH" not in seen["env"] or "PYTHONPATH" in os.environ


@pytest.mark.parametrize("secrets", [{}, {"password": "hidden-word"}, {"secret": "hidden-secret"}])
def test_the_agent_gets_the_secrets_of_a_job_beside_its_spec(hook_to, secrets):
    given = {"user": "ann", **secrets}
    sent, whole, arguments = hook_to("shows_its_options").run(spec(rdzv_configs=given))[0]
    assert sent == {"user": "ann"}
    assert whole == given
    assert "hidden" not in arguments


@pytest.mark.parametrize(
    ("part", "error", "failure_class", "retryable", "text"),
    [
        (
            "fails_like_a_worker",
            WorkersFailedError,
            FailureClass.USER_CODE,
            False,
            "rank 1 failed: Val",
        ),
        (
            "loses_its_rendezvous",
            RendezvousError,
            FailureClass.INFRASTRUCTURE,
            True,
            "store lost",
        ),
        (
            "finds_bad_configuration",
            ConfigError,
            FailureClass.BAD_CONFIGURATION,
            False,
            "one\n  - two",
        ),
        (
            "is_killed",
            AgentLostError,
            FailureClass.INFRASTRUCTURE,
            True,
            "SIGKILL: often the kernel's out-of-memory killer, or somebody's kill -9), and did not "
            "report how the job ended; its last lines on stderr:\n  last words",
        ),
        (
            "exits_without_a_verdict",
            AgentLostError,
            FailureClass.INFRASTRUCTURE,
            True,
            "exit code 3, and did not report how the job ended; its last lines on stderr:\n  last "
            "words",
        ),
        (
            "lacks_llutil",
            ConfigError,
            FailureClass.BAD_CONFIGURATION,
            False,
            "install airflow-provider-elastic-launch[torch] there; its last lines on stderr:\n"
            "  python: No module named llutil",
        ),
        (
            "speaks_another_version",
            ConfigError,
            FailureClass.BAD_CONFIGURATION,
            False,
            "/other/python has messages of version 99, and this task of version 6",
        ),
        (
            "talks_nonsense",
            ConfigError,
            FailureClass.BAD_CONFIGURATION,
            False,
            "not a message on the agent's socket: b'what?'",
        ),
    ],
)
def test_each_ending_is_told_as_what_it_is(hook_to, part, error, failure_class, retryable, text):
    with pytest.raises(error) as caught:
        hook_to(part).run(spec())
    assert (caught.value.failure_class, caught.value.retryable) == (failure_class, retryable)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("part", "options", "text"),
    [
        (
            "never_says_hello",
            {"hello_within": 0.2, "patience": 0.4},
            "0.2 s after its start without having said hello",
        ),
        ("hangs_up_and_stays", {"patience": 0.4}, "0.4 s after its last message"),
    ],
)
def test_an_agent_that_stays_for_no_reason_is_killed(hook_to, logged, part, options, text):
    with pytest.raises(AgentLostError, match=text):
        hook_to(part, **options).run(spec())
    assert any(level == "error" and "SIGKILL" in line for level, line in logged())


def test_an_interpreter_that_does_not_exist_is_bad_configuration():
    with pytest.raises(ConfigError, match="python '/no/such/python' cannot be started"):
        AgentHook(python="/no/such/python").run(spec())


def test_a_working_directory_that_does_not_exist_is_bad_configuration():
    with pytest.raises(ConfigError, match="cwd '/no/such/folder' is not a folder"):
        AgentHook(cwd="/no/such/folder").run(spec())


def test_a_stop_from_a_signal_handler_ends_the_job_and_its_last_lines_are_logged(hook_to, logged):
    hook = hook_to("stops_when_asked")
    runs = ("info", "[rank 0] running")
    with (
        alarm_when(lambda: runs in logged(), lambda: hook.stop("marked failed")),
        pytest.raises(StoppedError),
    ):
        hook.run(spec())
    assert ("info", "[rank 0] asked to stop: marked failed") in logged()


def test_a_stop_may_come_at_any_moment_and_as_often_as_it_likes(hook_to, logged):
    hook = hook_to("chatters_until_stopped")
    begun = time.monotonic()

    def stop_soon():
        if time.monotonic() - begun > 0.4:
            hook.stop("again and again")

    with alarm(0.001, stop_soon, every=0.005), pytest.raises(StoppedError):
        hook.run(spec())


def test_a_stop_while_the_spec_is_on_its_way_waits_for_its_end(hook_to):
    hook = hook_to("stops_when_asked")

    def stop_in_the_middle():
        if hook._session is not None:
            hook.stop("early")

    with (
        alarm(0.001, stop_in_the_middle, every=0.005),
        pytest.raises(StoppedError, match="stopped: early"),
    ):
        hook.run(spec(node_label="y" * 3_000_000))


class StuckDisplay(ProgressLines):
    """Shows nothing until a file exists, for ten seconds at most."""

    def __init__(self, file):
        super().__init__(lambda line: None)
        self.file = file
        self.shows = False
        self.seen = None

    def show(self, ranks, metrics):
        self.shows = True
        deadline = time.monotonic() + 10
        while not self.file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.seen = self.file.exists()


def test_a_stop_reaches_the_agent_also_while_the_task_is_stuck_in_its_log(hook_to, tmp_path):
    display = StuckDisplay(tmp_path / "note")
    hook = hook_to("notes_a_stop", display=display)
    with (
        alarm_when(lambda: display.shows, lambda: hook.stop("now")),
        pytest.raises(StoppedError) as caught,
    ):
        hook.run(spec(node_label=str(display.file)))
    assert display.seen
    assert caught.value.step == 1, "as its progress had said"


def test_a_stop_before_the_agent_exists_keeps_it_from_starting():
    hook = AgentHook(python="/no/such/python")
    hook.stop("too early")
    hook.stop("twice")
    with pytest.raises(StoppedError, match="not started: too early"):
        hook.run(spec())


def test_a_stop_after_the_end_does_nothing(hook_to):
    hook = hook_to("succeeds")
    hook.run(spec())
    hook.stop("late")


def test_an_agent_that_does_not_stop_when_asked_is_killed(hook_to, logged):
    hook = hook_to("never_ends", patience=0.4)
    with (
        alarm_when(lambda: hook.running, lambda: hook.stop("enough")),
        pytest.raises(StoppedError, match="SIGKILL"),
    ):
        hook.run(spec())
    assert any("after it was asked to stop (enough)" in line for _, line in logged())


class Timeout(BaseException):
    """What Airflow's alarm raises is no Exception either."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("moment", [0.0005, 0.002, 0.01, 0.03, 0.1])
def test_an_interruption_at_the_start_is_raised_and_leaves_no_process(any_hook_to, moment):
    # Between a fork and its return nobody knows the process. It sees its task hang up, and ends by
    # itself. In the same way nobody may know a descriptor; the garbage collector closes it, or the
    # end of the task.
    hook = any_hook_to("stops_when_asked")

    def interrupt():
        raise Timeout

    with pytest.raises(Timeout), alarm(moment, interrupt):
        hook.run(spec())
    gc.collect()


def test_an_interruption_is_raised_once_the_job_has_ended_and_its_last_lines_are_logged(
    hook_to, logged
):
    hook = hook_to("stops_when_asked")

    def interrupt():
        raise Timeout

    runs = ("info", "[rank 0] running")
    with pytest.raises(Timeout), alarm_when(lambda: runs in logged(), interrupt):
        hook.run(spec())
    reason = "the task was interrupted by Timeout"
    assert ("info", f"[rank 0] asked to stop: {reason}") in logged()
    assert ("warning", f"stopped: {reason}") in logged()


def test_a_line_that_an_interruption_has_damaged_hides_no_other(hook_to, logged):
    hook = hook_to("loses_a_piece_of_a_line")

    def interrupt():
        raise Timeout

    runs = ("info", "[rank 0] running")
    with pytest.raises(Timeout), alarm_when(lambda: runs in logged(), interrupt):
        hook.run(spec())
    assert ("info", "[rank 0] after the damage") in logged()


def test_a_large_spec_and_a_talkative_agent_do_not_wait_for_each_other(hook_to):
    hook = hook_to("writes_much_before_it_reads")
    assert hook.run(spec(node_label="y" * 3_000_000)) == {0: 3_000_000}


def test_a_survivor_that_holds_the_agents_pipes_is_not_waited_for(hook_to, logged):
    survivor = hook_to("leaves_a_child_that_holds_everything").run(spec())[0]
    assert is_alive(survivor)
    os.kill(survivor, signal.SIGKILL)
    assert ("info", "[agent] before the end") in logged()


def test_progress_is_shown_where_the_caller_wants_it(hook_to):
    shown = []
    hook_to("succeeds", display=ProgressLines(shown.append)).run(spec())
    assert shown == ["progress: rank 0 1/2 (50 %), rank 1 2/2 (100 %)"]


@pytest.mark.parametrize(
    ("nodes", "ids"),
    [(1, ["d.t.r.t2.a1-", "d.t.r.t2.a2-"]), (2, ["d.t.r.t2.a1-", "d.t.r.t2.a1-"])],
)
def test_a_second_attempt_of_one_node_has_a_new_id_and_of_several_the_same(
    hook_to, logged, nodes, ids
):
    key = TaskKey("d", "t", "r")
    launch = Launch(
        config=LaunchConfig(nodes, nodes, 1, run_id=key.rendezvous_id(2, 1)),
        id_by_attempt=nodes == 1,
        entrypoint=Command("x"),
        key=key,
        try_number=2,
        result_limit=100,
        retry=LaunchRetry(wait_initial=0, jitter=0),
    )
    hook = hook_to("loses_its_rendezvous_once")
    found = launch.run(hook, hook.log)[0]
    assert [name[: len(expected)] for name, expected in zip(found, ids, strict=True)] == ids
    assert len(set(found)) == len(set(ids))
    text = "launch attempt 1 of 3 failed; the next one follows in 0.0 s. store lost"
    assert ("warning", text) in logged()


def test_a_job_that_waits_in_vain_is_stopped_and_no_question_is_asked_while_workers_run(
    hook_to, logged
):
    asked, waited = [], []

    def idle_check(seconds):
        asked.append(("info", "[rank 0] nobody runs") in logged())
        waited.append(seconds)
        return "nobody will come" if len(asked) == 2 else None

    hook = hook_to("waits_for_others", idle_check_period=0.3)
    with pytest.raises(StoppedError, match="stopped: nobody will come"):
        hook.run(spec(), idle_check=idle_check)
    assert asked == [True, True]
    assert 0.3 <= waited[0] <= waited[1] - 0.3
    assert hook.world_size == 2
    assert hook.ran


def test_an_idle_check_may_end_one_job_and_not_the_next_one(hook_to):
    lost = ServerLostError("node 0 has gone")
    hook = hook_to("waits_for_others", idle_check_period=0.1)
    for _ in range(2):
        with pytest.raises(ServerLostError, match="node 0 has gone") as caught:
            hook.run(spec(), idle_check=lambda _: lost)
        assert isinstance(caught.value.__cause__, StoppedError)
        assert not hook.stopped


def test_a_stop_ends_the_wait_before_the_next_attempt():
    hook = AgentHook()
    begun = time.monotonic()
    with alarm(0.2, lambda: hook.stop("enough")):
        hook.sleep(60)
    assert time.monotonic() - begun < 50
