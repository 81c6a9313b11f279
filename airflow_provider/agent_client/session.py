"""One agent's run as its task sees it: it sends messages, receives messages, and tells the outcome.

``AgentSession`` works only when ``step`` is called; its owner decides how long to go on. It knows
the messages of ``llutil.task_link.messages``. How they look in the log is decided in
``airflow_provider.agent_client.log_relay``, and processes and pipes are handled in
``airflow_provider.agent_client.process``. It starts no thread, and reads only the monotonic clock.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from airflow_provider.agent_client.log_relay import LogRelay
from airflow_provider.agent_client.printed_lines import PrintedLines
from airflow_provider.agent_client.process import AgentSubprocess
from airflow_provider.agent_client.reported_end import ReportedEnd
from airflow_provider.agent_client.seen_job import SeenJob
from airflow_provider.agent_client.steer_queue import SteerQueue
from airflow_provider.agent_client.unreported_end import UnreportedEnd
from llutil.errors import ConfigError
from llutil.task_link.decoder import Decoder
from llutil.task_link.job_events import JobEvent
from llutil.task_link.messages import (
    VERSION,
    Hello,
    JobFailed,
    JobSucceeded,
    LedgerServed,
    LogRecord,
    Message,
    OutputLines,
    Result,
    ResultInFile,
    Spec,
    Steer,
    Stop,
    encode,
)

__all__ = ["AgentSession"]

_CHUNK = 64 * 1024
# Bytes read from the socket and from each pipe after the agent has ended, at most.
_LAST_OUTPUT = 1024 * 1024
# Seconds between two looks at a process whose socket is closed: a selector does not report its end.
_REAP_PERIOD = 0.05


class AgentSession:
    """Sends ``spec`` to ``agent`` and receives its messages until it ends.

    ``on_ledger`` is called with the endpoint of the job's ledger, if the agent serves it, and
    ``on_event`` with what happens to the job.

    Attributes that others read; times are in seconds on the monotonic clock:

    * ``hello``: the agent's first message; None before it came.
    * ``leaving_since``: when its last message came or its socket closed; infinite before.
    * ``ended``: whether it was reaped, and all its output was read.
    * ``job``: what has been seen of the job.
    """

    def __init__(
        self,
        agent: AgentSubprocess,
        relay: LogRelay,
        spec: Spec,
        on_ledger: Callable[[str], None] = lambda _: None,
        on_event: Callable[[JobEvent], None] = lambda _: None,
    ) -> None:
        self.hello: Hello | None = None
        self.leaving_since = float("inf")
        self.ended = False
        self._agent = agent
        self._relay = relay
        self.job = SeenJob()
        self._on_ledger = on_ledger
        self._on_event = on_event
        self._steers = SteerQueue()
        self._outgoing = memoryview(encode(spec))
        self._stop_sent = False
        self._decoder = Decoder()
        self._skip_unreadable = False
        self._message_error: ConfigError | None = None
        self._killed_because: str | None = None
        self._reported = ReportedEnd()
        self._exit_code = 0
        self._printed = PrintedLines(agent.pipes, relay)
        self._selector = selectors.DefaultSelector()
        self._selector.register(agent.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        for name, pipe in agent.pipes.items():
            self._selector.register(pipe, selectors.EVENT_READ, name)
        self._selector.register(self._steers, selectors.EVENT_READ)
        self._hung_up = False

    def send_stop(self, reason: str) -> None:
        """Send the command to stop, once, but never inside the spec. Signal handlers may call it.

        Call it again before each ``step``: if it could not be sent now, it is sent then.
        """
        if self._outgoing or self._stop_sent:
            return
        with suppress(OSError):  # if it is full, the next call tries again; if closed, it is over
            self._agent.socket.send(encode(Stop(reason)))
            self._stop_sent = True

    def steer(self, flags: Sequence[str], why: str) -> None:
        """Have ``flags`` raised on the page of the job, soon. Any thread may call it."""
        self._steers.put(flags, why)

    def interrupted(self) -> None:
        """Go on after an exception came from any place in this class, whatever it has damaged.

        The messages that came and were not handled are handled by the next ``step``. From now on
        lines that cannot be understood are skipped. If the spec was not sent in full, nobody knows
        how much of it was. Then the socket is closed for writing, and by that the agent learns that
        there is no job.
        """
        self._skip_unreadable = True
        if self._outgoing:
            self._outgoing = memoryview(b"")
            with suppress(OSError):
                self._agent.socket.shutdown(socket.SHUT_WR)

    def step(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for events of the agent, and handle them."""
        self._take_messages()  # those that are left after an exception
        self._printed.write()
        timeout = min(timeout, _REAP_PERIOD) if self._hung_up else timeout
        timeout = max(0.0, min(timeout, self._relay.due - time.monotonic()))
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._steers:
                self._steers.taken()
                continue
            if key.fileobj is not self._agent.socket:
                self._read_pipe(key.fd, key.data)
                continue
            if events & selectors.EVENT_WRITE:
                self._write()
            if events & selectors.EVENT_READ and not self._hung_up:
                self._read_socket()
        self._relay.turn()
        if not (self._outgoing or self._hung_up):
            self._steers.send(self._agent.socket)
        exit_code = self._agent.poll()
        if exit_code is not None and not self.ended:
            self._exit_code = exit_code
            self._read_what_is_left()
            self.ended = True

    def kill(self, why: str) -> None:
        """Send SIGKILL to the agent's process group; ``why`` goes into the log and the error."""
        self._killed_because = why
        self._relay.say(logging.ERROR, f"{why}: SIGKILL to its process group")
        self._agent.kill()

    def close(self) -> None:
        """Close the socket and the pipes. An agent that still runs sees that and ends by itself."""
        self._selector.close()
        self._steers.close()
        self._agent.close()

    def outcome(self, stop_reason: str | None) -> dict[int, Any]:
        """The value of each rank, or its place in the results file. Call it only once ``ended``.

        ``stop_reason`` is why the agent was asked to stop; None if it was not.

        :raises LaunchError: the job failed; see ``AgentHook.run`` for the classes.
        """
        if (values := self._reported.values()) is not None:
            return values
        if self._message_error is not None:
            raise self._message_error
        raise UnreportedEnd(
            pid=self._agent.pid,
            python=self._agent.python,
            exit_code=self._exit_code,
            said_hello=self.hello is not None,
            stop_reason=stop_reason,
            killed_because=self._killed_because,
            last_errors=self._relay.last_errors,
        ).error()

    def _write(self) -> None:
        try:
            sent = self._agent.socket.send(self._outgoing[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:  # the agent is gone: the next read notices it
            sent = len(self._outgoing)
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._selector.modify(self._agent.socket, selectors.EVENT_READ)

    def _read_socket(self) -> None:
        try:
            more = self._decoder.receive(self._agent.socket.recv, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            more = False
        self._take_messages()
        if not more:
            self._hang_up()

    def _take_messages(self) -> None:
        """Handle the messages that have come in full.

        An alarm may raise anywhere in here. So what the outcome depends on is remembered before a
        message is dropped: remembering it twice does no harm. Others are told of it afterwards, and
        may never be: what has raised there must not be called again with the same message.
        """
        while self._message_error is None:
            try:
                message = self._decoder.first()
                if message is None:
                    return
                self._remember(message)
                self._decoder.drop()
                self._tell(message)
            except ConfigError as error:
                if not self._skip_unreadable:
                    self._message_error = error
                    self._hang_up()

    def _remember(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.hello = message
            self.job.agent_began()
        elif isinstance(message, JobEvent):
            self.job.hear(message)
        elif isinstance(message, Result | ResultInFile | JobSucceeded | JobFailed):
            self._reported.hear(message)
            if isinstance(message, JobSucceeded | JobFailed):
                self.leaving_since = time.monotonic()

    def _tell(self, message: Message) -> None:
        if isinstance(message, JobEvent):
            self._relay.event(message)
            self._on_event(message)
            return
        match message:
            case OutputLines() | LogRecord():
                self._relay.event(message)
            case LedgerServed(endpoint=endpoint):
                self._on_ledger(endpoint)
            case Hello(version=version, python=python) if version != VERSION:
                raise ConfigError(
                    f"the agent under {python} has messages of version {version}, and this task of "
                    f"version {VERSION}: install the same airflow-provider-elastic-launch on both "
                    "sides"
                )
            case Hello() | Result() | ResultInFile() | JobSucceeded() | JobFailed():
                pass
            case Spec() | Stop() | Steer():
                kind = type(message).__name__
                raise ConfigError(f"the agent sent a {kind}, which only a task may send")

    def _read_pipe(self, pipe: int, name: str) -> None:
        if not self._printed.read(pipe, name, _CHUNK):
            self._selector.unregister(pipe)

    def _read_what_is_left(self) -> None:
        """Read what the ended process has left in its socket and pipes.

        Other processes may hold them open, so this does not wait for their end.
        """
        allowed = dict.fromkeys((self._agent.socket, *self._agent.pipes.values()), _LAST_OUTPUT)
        # A steer that comes now is readable too, and nobody can take it any more.
        while ready := [
            key for key, _ in self._selector.select(0) if allowed.get(key.fileobj, 0) > 0
        ]:
            for key in ready:
                allowed[key.fileobj] -= _CHUNK
                if key.fileobj is self._agent.socket:
                    self._read_socket()
                else:
                    self._read_pipe(key.fd, key.data)
        self._hang_up()
        self._printed.finish()

    def _hang_up(self) -> None:
        """Close the connection: the agent sees that its task is gone, and ends its job."""
        if self._hung_up:
            return
        self._hung_up = True
        self._outgoing = memoryview(b"")
        self._selector.unregister(self._agent.socket)
        self.leaving_since = min(self.leaving_since, time.monotonic())
        with suppress(OSError):
            self._agent.socket.shutdown(socket.SHUT_RDWR)
