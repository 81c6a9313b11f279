"""One agent's life as its task hears it: what goes out, what comes in, and what it all amounts to.

``AgentSession`` moves when ``step`` is called, and its owner decides how long to go on. It knows
the messages of ``llutil.task_link.messages``; what they look like in the log is
``airflow_provider.agent_client.log_relay``'s affair, and processes and pipes are
``airflow_provider.agent_client.process``'s. No thread, no clock but the monotonic one.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from airflow_provider.agent_client.error_from_message import error_from
from airflow_provider.agent_client.log_relay import LogRelay
from airflow_provider.agent_client.process import AgentSubprocess
from llutil.errors import AgentLostError, ConfigError, StoppedError
from llutil.system.exit_status import exit_text
from llutil.system.line_splitter import LineSplitter
from llutil.task_link.messages import (
    VERSION,
    Decoder,
    Hello,
    Hosting,
    JobFailed,
    JobSucceeded,
    LogRecord,
    Message,
    OutputLine,
    Progress,
    Result,
    ResultInFile,
    RoundBegan,
    Spec,
    Stop,
    encode,
)

__all__ = ["AgentSession"]

_CHUNK = 64 * 1024
_LAST_WORDS = 1024 * 1024  # bytes read from each pipe once the agent has ended
_REAPING = (
    0.05  # seconds between looks at a process that has hung up: its end is no event of a selector
)


class AgentSession:
    """Says ``spec`` to ``agent`` and hears it out; ``hosting`` is told where the agent hosts the
    job's store, if it does.

    ``hello``: what the agent has said first; None before. ``leaving_since``: when it said its last
    message or its socket closed, by the monotonic clock; infinite before. ``ended``: it was reaped,
    and all it said was taken. ``world_size``: all ranks of the last round, on whatever node; 0
    before the first. ``idle_since``: since when no worker runs here, by the monotonic clock;
    infinite while some do, and before the agent has said hello. ``furthest``: the last step that
    any rank of this node is known to have made.
    """

    def __init__(
        self,
        agent: AgentSubprocess,
        relay: LogRelay,
        spec: Spec,
        hosting: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.hello: Hello | None = None
        self.leaving_since = float("inf")
        self.ended = False
        self.world_size = 0
        self.furthest = 0
        self.idle_since = float("inf")
        self._agent = agent
        self._relay = relay
        self._hosting = hosting
        self._outgoing = memoryview(encode(spec))
        self._stop_sent = False
        self._decoder = Decoder()
        self._forgiving = False
        self._refused: ConfigError | None = None
        self._killed: str | None = None
        self._final: JobSucceeded | JobFailed | None = None
        self._results: dict[int, Any] = {}
        self._code = 0
        self._splitters = {name: LineSplitter() for name in agent.pipes}
        self._selector = selectors.DefaultSelector()
        self._selector.register(agent.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        for name, pipe in agent.pipes.items():
            self._selector.register(pipe, selectors.EVENT_READ, name)
        self._hung_up = False

    def send_stop(self, reason: str) -> None:
        """Write one line, once, and not into the middle of the spec. Runs in signal handlers: see
        ``AgentHook``.

        Call it again before each ``step``: what could not be sent now is sent then.
        """
        if self._outgoing or self._stop_sent:
            return
        with suppress(OSError):  # full: try again; closed: the agent has gone
            self._agent.socket.send(encode(Stop(reason)))
            self._stop_sent = True

    def interrupted(self) -> None:
        """An exception came from anywhere in here: go on, with whatever it has damaged.

        A piece of a line may have been lost on its way in, so what cannot be understood is now
        skipped. If the spec was not out yet, nobody knows how much of it was; then the agent is
        told by hanging up.
        """
        self._forgiving = True
        if self._outgoing:
            self._outgoing = memoryview(b"")
            with suppress(OSError):
                self._agent.socket.shutdown(socket.SHUT_WR)

    def step(self, timeout: float) -> None:
        """Wait for something to happen, at most ``timeout`` seconds, and take care of it."""
        for key, events in self._selector.select(
            min(timeout, _REAPING) if self._hung_up else timeout
        ):
            if key.fileobj is not self._agent.socket:
                self._read_pipe(key.fd, key.data)
                continue
            if events & selectors.EVENT_WRITE:
                self._write()
            if events & selectors.EVENT_READ and not self._hung_up:
                self._read_socket()
        code = self._agent.poll()
        if code is not None and not self.ended:
            self._code = code
            self._read_what_is_left()
            self.ended = True

    def kill(self, why: str) -> None:
        """SIGKILL the agent, and say so."""
        self._killed = why
        self._relay.say(logging.ERROR, f"{why}: SIGKILL to its process group")
        self._agent.kill()

    def close(self) -> None:
        """Let go of everything. An agent that still runs sees that and ends by itself."""
        self._selector.close()
        self._agent.close()

    def outcome(self, stop_reason: str | None) -> dict[int, Any]:
        """The ranks' values, or where they are filed, or the error that it all amounts to. Call it
        once ``ended``.

        :raises LaunchError: see ``AgentHook.run``.
        """
        match self._final:
            case JobSucceeded(ranks=ranks):
                return {rank: self._results.get(rank) for rank in sorted(ranks)}
            case JobFailed():
                raise error_from(self._final)
            case None:
                pass
        if self._refused is not None:
            raise self._refused
        ended = f"the agent (pid {self._agent.pid}) ended with {exit_text(self._code)}"
        if stop_reason is not None:
            raise StoppedError(f"stopped ({stop_reason}); {ended} and without a verdict")
        if self._killed is not None:
            raise AgentLostError(self._with_last_words(f"{self._killed}, and was killed"))
        if self.hello is None and self._code >= 0:
            # By its own choice and before it did anything: what is wrong will be wrong the next
            # time.
            raise ConfigError(
                self._with_last_words(
                    f"python {self._agent.python!r} cannot run the agent ({exit_text(self._code)}); "
                    "install airflow-provider-elastic-launch[torch] there"
                )
            )
        raise AgentLostError(self._with_last_words(f"{ended}, and without a verdict"))

    def _write(self) -> None:
        try:
            sent = self._agent.socket.send(self._outgoing[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:  # the agent is gone: reading will tell
            sent = len(self._outgoing)
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._selector.modify(self._agent.socket, selectors.EVENT_READ)

    def _read_socket(self) -> None:
        try:
            data = self._agent.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._hang_up()
            return
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except ConfigError as error:
            if not self._forgiving:
                self._refused = error
                self._hang_up()

    def _take(self, message: Message) -> None:
        match message:
            case Hello(version=version, python=python):
                self.hello = message
                self.idle_since = time.monotonic()
                if version != VERSION:
                    raise ConfigError(
                        f"the agent under {python} speaks version {version} and this task version {VERSION}: "
                        "install the same airflow-provider-elastic-launch on both sides"
                    )
            case OutputLine() | LogRecord() | RoundBegan() | Progress():
                if isinstance(message, RoundBegan):
                    self._take_round(message)
                if isinstance(message, Progress):
                    self.furthest = max(
                        self.furthest, *(step for step, _ in message.ranks.values()), 0
                    )
                self._relay.event(message)
            case Hosting(endpoint=endpoint):
                self._hosting(endpoint)
            case Result(rank=rank, value=value):
                self._results[rank] = value
            case ResultInFile(rank=rank):
                self._results[rank] = message
            case JobSucceeded() | JobFailed():
                self._final = message
                self.leaving_since = time.monotonic()
            case Spec() | Stop():
                kind = type(message).__name__
                raise ConfigError(f"the agent sent a {kind}, which is for a task to say")

    def _take_round(self, message: RoundBegan) -> None:
        if message.ranks:
            self.world_size = message.world_size
            self.idle_since = float("inf")
        else:
            self.idle_since = time.monotonic()

    def _read_pipe(self, pipe: int, name: str) -> None:
        data = os.read(pipe, _CHUNK)
        splitter = self._splitters[name]
        lines = splitter.feed(data, time.monotonic()) if data else splitter.finish()
        for line in lines:
            self._relay.printed(name, line)
        if not data:
            self._selector.unregister(pipe)

    def _read_what_is_left(self) -> None:
        """The process has been reaped. Others may hold its socket and pipes open: wait for none of
        them.
        """
        left = dict.fromkeys((self._agent.socket, *self._agent.pipes.values()), _LAST_WORDS)
        while ready := [key for key, _ in self._selector.select(0) if left[key.fileobj] > 0]:
            for key in ready:
                left[key.fileobj] -= _CHUNK
                if key.fileobj is self._agent.socket:
                    self._read_socket()
                else:
                    self._read_pipe(key.fd, key.data)
        self._hang_up()
        for name, splitter in self._splitters.items():
            for line in splitter.finish():
                self._relay.printed(name, line)

    def _hang_up(self) -> None:
        """Neither listen nor speak any more: the agent sees that its task is gone, and ends its
        job.
        """
        if self._hung_up:
            return
        self._hung_up = True
        self._outgoing = memoryview(b"")
        self._selector.unregister(self._agent.socket)
        self.leaving_since = min(self.leaving_since, time.monotonic())
        with suppress(OSError):
            self._agent.socket.shutdown(socket.SHUT_RDWR)

    def _with_last_words(self, text: str) -> str:
        words = "".join(f"\n  {line}" for line in self._relay.last_errors)
        return f"{text}; its last lines on stderr:{words}" if words else f"{text}; it left no word"
