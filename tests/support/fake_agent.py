"""A stand-in for the agent that speaks the real messages over the real socket and pipes, and runs
no job.

It is started as the interpreter of an ``AgentHook``, gets the arguments that an agent gets, and
plays the part that ``FAKE_AGENT_PART`` names. It ends when its task hangs up, whatever part it
plays, but for the parts that are about not ending.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from llutil.failure import FailureClass, JobFailure
from llutil.task_link.decoder import Decoder
from llutil.task_link.messages import (
    Hello,
    JobFailed,
    JobSucceeded,
    LedgerServed,
    LogRecord,
    Message,
    OutputLines,
    Progress,
    Result,
    RoundBegan,
    Saved,
    Spec,
    Steer,
    Steered,
    Stop,
    Stopped,
    encode,
)
from llutil.task_link.secrets_file import take_secrets

PATIENCE = 20.0  # seconds, so that a failed test leaves nothing behind for long

PREEMPTED = JobFailure(failure_class=FailureClass.PREEMPTION)
STORE_LOST = JobFailure(failure_class=FailureClass.INFRASTRUCTURE)


class Task:
    """The other side."""

    def __init__(self, fd: int, secrets: int | None) -> None:
        self.socket = socket.socket(fileno=fd)
        self.secrets = secrets
        self.decoder = Decoder()
        self.heard: deque[Message] = deque()

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.socket.sendall(encode(message))

    def hear(self) -> Message | None:
        """The next message; None when the task has hung up."""
        while not self.heard:
            if not select.select([self.socket], [], [], PATIENCE)[0]:
                raise SystemExit("nobody spoke")
            data = self.socket.recv(65536)
            if not data:
                return None
            self.heard.extend(self.decoder.feed(data))
        return self.heard.popleft()

    def spec(self) -> Spec:
        message = self.hear()
        assert isinstance(message, Spec)
        if message.config.rdzv_configs.get("serves"):
            self.tell(LedgerServed(message.config.rdzv_endpoint))
        return message

    def hello(self) -> None:
        self.tell(Hello(os.getpid(), sys.executable))


def succeeds(task: Task) -> None:
    task.hello()
    spec = task.spec()
    print("printed by the agent")
    print("UserWarning-free stderr of the agent", file=sys.stderr)
    task.tell(
        LogRecord("WARNING", "llutil.agent", "a record of the agent"),
        RoundBegan(0, 2, (0, 1)),
        OutputLines(0, "stdout", "hello from rank 0"),
        OutputLines(1, "stderr", "chatter from rank 1"),
        OutputLines(1, "stderr", "ValueError: trouble of rank 1"),
        Progress({0: (1, 2), 1: (2, 2)}),
        Result(0, {"run_id": spec.config.run_id}),
        Result(1, None),
        JobSucceeded((0, 1)),
    )


def is_stopped_by_a_flag(task: Task) -> None:
    task.hello()
    task.spec()
    task.tell(RoundBegan(0, 1, (0,)), Saved(3))
    steer = task.hear()
    assert isinstance(steer, Steer)
    task.tell(
        Steered(f"{', '.join(steer.flags)} is asked for"),
        Stopped(4, steer.why),
        Result(0, 4),
        JobSucceeded((0,)),
    )


def shows_its_environment(task: Task) -> None:
    task.hello()
    task.spec()
    seen = {"env": dict(os.environ), "cwd": str(Path.cwd()), "session": os.getsid(0)}
    task.tell(Result(0, seen | {"path": sys.argv[sys.argv.index("--path") + 1 :]}))
    task.tell(JobSucceeded((0,)))


def shows_its_options(task: Task) -> None:
    """Those of the rendezvous, as they are in the spec and with the secrets."""
    task.hello()
    sent = task.spec().config
    whole = sent if task.secrets is None else take_secrets(sent, task.secrets)
    arguments = Path("/proc/self/cmdline").read_text()
    seen = [dict(sent.rdzv_configs), {k: str(v) for k, v in whole.rdzv_configs.items()}, arguments]
    task.tell(Result(0, seen), JobSucceeded((0,)))


def fails_like_a_worker(task: Task) -> None:
    task.hello()
    task.spec()
    report = "rank 1 failed: ValueError: bad"
    task.tell(
        JobFailed(
            "ChildFailedError", report, False, JobFailure(failure_class=FailureClass.USER_CODE)
        )
    )


def loses_its_rendezvous(task: Task) -> None:
    task.hello()
    task.spec()
    task.tell(JobFailed("RendezvousError", "store lost", True, STORE_LOST))


def loses_its_rendezvous_once(task: Task) -> None:
    """Fails in the first attempt, which leaves a note in the log folder."""
    task.hello()
    spec = task.spec()
    note = Path(spec.config.log_dir or "", "run_id")
    if note.exists():
        task.tell(Result(0, [note.read_text(), spec.config.run_id]), JobSucceeded((0,)))
    else:
        note.write_text(spec.config.run_id)
        task.tell(JobFailed("RendezvousError", "store lost", True, STORE_LOST))


def finds_bad_configuration(task: Task) -> None:
    task.hello()
    task.spec()
    report = "2 things are wrong:\n  - one\n  - two"
    task.tell(
        JobFailed(
            "ConfigError", report, False, JobFailure(failure_class=FailureClass.BAD_CONFIGURATION)
        )
    )


def is_killed(task: Task) -> None:
    task.hello()
    task.spec()
    print("last words", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def exits_without_a_verdict(task: Task) -> None:
    task.hello()
    task.spec()
    print("last words", file=sys.stderr)
    raise SystemExit(3)


def lacks_llutil(task: Task) -> None:
    raise SystemExit("python: No module named llutil")


def never_says_hello(task: Task) -> None:
    task.spec()
    task.hear()


def speaks_another_version(task: Task) -> None:
    task.tell(Hello(os.getpid(), "/other/python", version=99))
    while task.hear() is not None:
        pass


def talks_nonsense(task: Task) -> None:
    task.hello()
    task.socket.sendall(b"what?\n")
    while task.hear() is not None:
        pass


def stops_when_asked(task: Task) -> None:
    task.hello()
    task.spec()
    task.tell(OutputLines(0, "stdout", "running"))
    match task.hear():
        case Stop(reason=reason):
            task.tell(OutputLines(0, "stdout", f"asked to stop: {reason}"))
            task.tell(JobFailed("StoppedError", f"stopped: {reason}", False, PREEMPTED))
        case None:
            print("the task hung up", file=sys.stderr)


def serves(task: Task) -> None:
    """Says where it serves the ledger, and then goes on until it is asked to stop."""
    task.hello()
    task.spec()
    task.tell(LedgerServed("10.0.0.1:5000"))
    if isinstance(task.hear(), Stop):
        task.tell(JobFailed("StoppedError", "stopped", False, PREEMPTED))


def waits_for_others(task: Task) -> None:
    """Its workers run for a while, and end; then it waits until it is asked to stop."""
    task.hello()
    task.spec()
    task.tell(RoundBegan(0, 2, (0,)))
    time.sleep(0.7)
    task.tell(OutputLines(0, "stdout", "nobody runs"), RoundBegan(0, 0, ()))
    stop = task.hear()
    assert isinstance(stop, Stop)
    task.tell(JobFailed("StoppedError", f"stopped: {stop.reason}", False, PREEMPTED))


def loses_a_piece_of_a_line(task: Task) -> None:
    """Once asked to stop: says the end of a line whose beginning is lost, and then something
    whole.
    """
    task.hello()
    task.spec()
    task.tell(OutputLines(0, "stdout", "running"))
    task.hear()
    task.socket.sendall(b'"text":"the end"}\n')
    time.sleep(0.3)
    task.tell(OutputLines(0, "stdout", "after the damage"))


def notes_a_stop(task: Task) -> None:
    """Shows progress, so that the task is busy showing it, and leaves a file when it is asked to
    stop.
    """
    task.hello()
    spec = task.spec()
    task.tell(Progress({0: (1, 2)}))
    if isinstance(task.hear(), Stop):
        Path(spec.config.node_label).touch()
    task.tell(JobFailed("StoppedError", "stopped", False, PREEMPTED))


def never_ends(task: Task) -> None:
    task.hello()
    task.spec()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    select.select([], [], [], PATIENCE)


def hangs_up_and_stays(task: Task) -> None:
    task.hello()
    task.spec()
    task.socket.close()
    select.select([], [], [], PATIENCE)


def writes_much_before_it_reads(task: Task) -> None:
    for _ in range(200):
        print("x" * 1023, file=sys.stderr)
    task.hello()
    spec = task.spec()
    task.tell(Result(0, len(spec.config.node_label)), JobSucceeded((0,)))


def leaves_a_child_that_holds_everything(task: Task) -> None:
    task.hello()
    task.spec()
    child = subprocess.Popen(["sleep", str(PATIENCE)], pass_fds=(task.socket.fileno(),))
    print("before the end", end="", flush=True)
    task.tell(Result(0, child.pid), JobSucceeded((0,)))


def chatters_until_stopped(task: Task) -> None:
    task.hello()
    task.spec()
    while not task.heard and not select.select([task.socket], [], [], 0)[0]:
        task.tell(*(OutputLines(0, "stdout", f"line {n}") for n in range(20)))
    task.hear()
    task.tell(JobFailed("StoppedError", "stopped", False, PREEMPTED))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-u", action="store_true", required=True)
    parser.add_argument("-c", required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--stdout-reader", type=int, required=True)
    parser.add_argument("--stderr-reader", type=int, required=True)
    parser.add_argument("--secrets", type=int)
    parser.add_argument("--turn", type=int)
    parser.add_argument("--before-site-packages", type=int, required=True)
    parser.add_argument("--path", nargs="*", required=True)
    options = parser.parse_args()
    for reader in (options.stdout_reader, options.stderr_reader):
        os.fstat(reader)
    part: Callable[[Task], None] = globals()[os.environ["FAKE_AGENT_PART"]]
    part(Task(options.socket, options.secrets))


if __name__ == "__main__":
    main()
