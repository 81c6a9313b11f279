"""A small process that ends everything of a job that its agent left when the agent was killed.

The agent holds one end of a pipe and writes to it, line by line, which sessions to end; see
``client``. However the agent ends, the kernel closes the pipe. If the agent did not write
``goodbye`` first, the guardian kills these sessions, their descendants, and every process that
carries the job's mark. Then nothing of the node runs any more, and the guardian ends the node's
lease, so that its peers need not wait until it expires. The guardian is a fresh interpreter in its
own session, without torch, site-packages or a second thread, and it starts no process.

A job may be over in a tenth of a second, and its workers need the CPUs. So at first the guardian
imports only what ends processes. It imports the rest when the pipe has been quiet for a while, or
at the end. This module may import nothing but ``llutil.system.kill_all``, ``llutil.time_budgets``,
``llutil.agent_socket.folder``, ``llutil.events.page_file``, ``llutil.ledgers.lease_revocation``, a
revocation's module, and the standard library. json, which imports regular expressions, is among
what is imported later.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from llutil.system.kill_all import Survivors, kill_all
from llutil.time_budgets import KILLED

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported here
    from collections.abc import Callable, Iterator

__all__ = ["GOODBYE", "main"]

GOODBYE = b"goodbye"
"""The line that the agent writes at the end of a job that has left nothing."""

# Seconds to wait until an agent whose pipe closed has ended, and between two looks at it.
_AGENT_END_TIMEOUT = 2.0
_AGENT_END_PERIOD = 0.02
# Milliseconds without a line, after which the guardian imports what it may need later.
_IDLE_TIME = 500
_STDERR = 2
# Bytes read at once.
_READ_SIZE = 1 << 16


def main(pipe_fd: int, mark: str, agent: int) -> None:
    """Run the guardian: read the pipe until it closes, and if the agent did not say goodbye, end
    what it left.

    ``agent`` is the agent's process number.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # Such a signal is meant for the agent; the guardian ends after the agent.
        signal.signal(number, signal.SIG_IGN)
    # A batch system may send any other signal to every process of its job.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    sessions: dict[int, int] = {}
    revoke: Callable[[], None] | None = None
    for line in _lines(pipe_fd, agent):
        word, _, rest = line.partition(b" ")
        match word:
            case b"session":
                leader, start = rest.split()
                sessions[int(leader)] = int(start)
            case b"ended":
                sessions.pop(int(rest), None)
            case b"revocation":
                revoke = _prepare_revocation(rest)
            case _:
                return  # goodbye
    left = kill_all(sessions, mark, time.monotonic() + KILLED)
    if left:
        _print_problem(f"the agent is gone, but not all processes of its job: {left}")
    if revoke is not None:
        _revoke_lease(revoke, left)
    # Remove the event page and the socket, which would else stay until the next launch on this
    # host. They count as stale only when the agent has ended, a little after its pipe closed.
    deadline = time.monotonic() + _AGENT_END_TIMEOUT
    while os.getppid() == agent and time.monotonic() < deadline:
        time.sleep(_AGENT_END_PERIOD)
    _remove_stale_files()
    _give_terminal_back()


def _lines(pipe_fd: int, agent: int) -> Iterator[bytes]:
    """The lines that the agent wrote. A last line without its end, which the agent was killed in,
    is dropped.

    The agent has ended if its pipe is closed, or its process has ended: another fork of the user's
    program may still hold the pipe.
    """
    poll = select.poll()
    poll.register(pipe_fd, select.POLLIN)
    with suppress(OSError):  # the agent has ended already
        agent_fd = os.pidfd_open(agent)
        if os.getppid() == agent:
            poll.register(agent_fd, select.POLLIN)
    begun = b""
    while True:
        ready = poll.poll(_IDLE_TIME)
        if not ready:
            _import_the_rest()
            ready = poll.poll()
        if pipe_fd not in dict(ready) or not (piece := os.read(pipe_fd, _READ_SIZE)):
            return
        *lines, begun = (begun + piece).split(b"\n")
        yield from lines


def _import_the_rest() -> None:
    """Import ahead, while there is time. What is missing is ignored here: ending processes comes
    first.
    """
    try:
        import llutil.agent_socket.folder
        import llutil.events.page_file
        import llutil.ledgers.lease_revocation  # noqa: F401
    except (ImportError, OSError):
        return


def _remove_stale_files() -> None:
    from llutil.agent_socket.folder import remove_stale as remove_stale_sockets
    from llutil.events.page_file import remove_stale as remove_stale_pages

    remove_stale_pages()
    remove_stale_sockets()


def _give_terminal_back() -> None:
    """Have the terminal scroll all of its lines. The agent may have kept one for its progress; see
    ``llutil.progress.terminal_line``.
    """
    poll = select.poll()
    with suppress(OSError):  # standard error is closed, or its reader is gone
        poll.register(_STDERR, select.POLLOUT)
        if (
            os.environ.get("TERM", "dumb") != "dumb"
            and os.isatty(_STDERR)
            and poll.poll(0) == [(_STDERR, select.POLLOUT)]  # a paused terminal is left alone
        ):
            os.write(_STDERR, b"\x1b7\x1b[r\x1b8")


def _prepare_revocation(text: bytes) -> Callable[[], None] | None:
    """The function that ends the node's lease, with its modules imported; None if there is no lease
    to end.
    """
    import json

    revocation = json.loads(text)
    if revocation is None:
        return None
    try:
        from llutil.ledgers.lease_revocation import LeaseRevocation

        return LeaseRevocation.from_json(revocation).prepare()
    except ImportError as error:
        # For example, a Python without ssl. The guardian goes on: it can still end processes.
        _print_problem(f"if this node is killed, its lease will not be revoked but expire: {error}")
        return None


def _revoke_lease(revoke: Callable[[], None], left: Survivors) -> None:
    """End the node's lease, unless a rank of the node may be ``left``: peers must not go on while
    it still runs.
    """
    from llutil.errors import RendezvousError

    try:
        if left.ours:
            raise RendezvousError(
                f"processes {sorted(left.ours)} of a node that was killed did not end; its lease "
                "is left to expire"
            )
        revoke()
    except RendezvousError as error:
        _print_problem(str(error))


def _print_problem(text: str) -> None:
    try:
        os.write(_STDERR, f"llutil's guardian: {text}\n".encode(errors="replace"))
    except OSError:  # standard error was the agent's, and its reader may be gone
        return
