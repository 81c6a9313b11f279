"""A tiny process that outlives its agent by one purpose: to leave nothing of the job behind.

The agent holds one end of a pipe and tells the guardian, line by line, whom to look after; see
``guardian``, which is the agent's side. However the agent ends, the kernel closes the pipe. If the
agent did not say goodbye first, the guardian kills the sessions that it was told of, their
descendants, and everything that carries the job's mark. Only then, when nothing of the node runs
any more, it ends the node's lease, so its peers need not wait until the lease expires. It is a
fresh interpreter in a session of its own, without torch, site-packages or a thread, and it starts
nothing.

A job may be over in a tenth of a second, and its workers want the processors: so what ends
processes is all that is imported at first, and the rest when there has been nothing to hear for a
moment, or at the end. This module may import nothing but ``processes``,
``llutil.time_budgets``, ``llutil.events.page_file``, ``llutil.ledgers.lease_revocation``, a
revocation's module, and the standard library, of which json, with its regular expressions, waits
too.
"""

from __future__ import annotations

import os
import select
import signal
import time

from llutil.system.processes import kill_all
from llutil.time_budgets import KILLED

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported here
    from collections.abc import Callable, Iterator

__all__ = ["GOODBYE", "main"]

GOODBYE = b"goodbye"
"""What the agent says at the end of a job that has left nothing."""

_GONE_DEADLINE = 2.0  # seconds for an agent whose pipe closed to be gone
_GONE_PERIOD = 0.02
_MOMENT = 500  # milliseconds
_PIECE = 1 << 16  # bytes read at once


def main(pipe_fd: int, mark: str, agent: int) -> None:
    """The guardian's whole life: listen, and if the pipe closes without a goodbye, clear up after
    the agent.

    ``agent`` is the agent's process number.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(
            number, signal.SIG_IGN
        )  # it ends with the agent, not with what is meant for the agent
    sessions: set[int] = set()
    carry_out: Callable[[], None] | None = None
    for line in _lines(pipe_fd):
        word, _, rest = line.partition(b" ")
        match word:
            case b"session":
                sessions.add(int(rest))
            case b"ended":
                sessions.discard(int(rest))
            case b"revocation":
                carry_out = _prepared(rest)
            case _:
                return  # goodbye
    left = kill_all(sessions, mark, time.monotonic() + KILLED)
    if carry_out is not None:
        _execute(carry_out, left)
    # Its event page would stay until the next launch on this host. The pipe closes a little before
    # the agent counts as gone, which makes its page one that may be removed.
    deadline = time.monotonic() + _GONE_DEADLINE
    while os.getppid() == agent and time.monotonic() < deadline:
        time.sleep(_GONE_PERIOD)
    _remove_stale_pages()


def _lines(pipe_fd: int) -> Iterator[bytes]:
    """What the agent says. Of a line that it was killed in, nothing is known but that."""
    poll = select.poll()
    poll.register(pipe_fd, select.POLLIN)
    if not poll.poll(_MOMENT):
        _import_the_rest()
    heard = b""
    while piece := os.read(pipe_fd, _PIECE):
        *lines, heard = (heard + piece).split(b"\n")
        yield from lines
        if not poll.poll(_MOMENT):
            _import_the_rest()


def _import_the_rest() -> None:
    """While there is time. What cannot be found is not missed before its turn comes: processes are
    ended first.
    """
    try:
        import llutil.events.page_file
        import llutil.ledgers.lease_revocation  # noqa: F401
    except (ImportError, OSError):
        return


def _remove_stale_pages() -> None:
    from llutil.events.page_file import remove_stale

    remove_stale()


def _prepared(told: bytes) -> Callable[[], None] | None:
    """The function that ends the node's lease, with its modules imported already; None if there is
    no revocation.
    """
    import json

    revocation = json.loads(told)
    if revocation is None:
        return None
    try:
        from llutil.ledgers.lease_revocation import LeaseRevocation

        return LeaseRevocation.from_json(revocation).prepare()
    except (
        ImportError
    ) as error:  # a Python without ssl, say: the rest of a guardian's work is worth more
        _say(f"if this node is killed, its lease is left to expire: {error}")
        return None


def _execute(carry_out: Callable[[], None], left: set[int]) -> None:
    """End the node's lease, unless a process of the node is ``left``: peers must not go on while
    it still runs.
    """
    from llutil.errors import RendezvousError

    try:
        if left:
            raise RendezvousError(
                f"processes {sorted(left)} of a node that was killed did not end; its lease is "
                "left to expire"
            )
        carry_out()
    except RendezvousError as error:
        _say(str(error))


def _say(text: str) -> None:
    try:
        os.write(2, f"llutil's guardian: {text}\n".encode(errors="replace"))
    except OSError:  # the standard error was the agent's; nobody may read it any more
        return
