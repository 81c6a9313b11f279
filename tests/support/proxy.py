"""A TCP proxy with faults that have names: what a network does between a ledger and its store."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from llutil.backends.endpoints import Endpoint

__all__ = ["Proxy", "proxy"]

_END = 5.0  # seconds for its threads to end


class Proxy:
    """Forwards a port of the loopback interface to ``target``; two threads a connection, and one to
    accept.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        """Guards the three below."""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._refusing = False
        self._losing = False
        self.lost = threading.Event()
        """Set once a reply was lost."""
        self._start(self._accept)

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return Endpoint("127.0.0.1", self.port)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="proxy", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def cut(self) -> None:
        """Reset all connections, and accept no other until ``mend``."""
        with self._lock:
            self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Reset all connections; whoever comes again is let in."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _shut(pair)

    def mend(self) -> None:
        """Forward again, on new connections."""
        with self._lock:
            self._refusing = self._losing = False
        self.lost.clear()
        self.reset()

    def lose_replies(self) -> None:
        """Forward requests, and lose what the server answers, until ``mend``."""
        with self._lock:
            self._losing = True

    def close(self) -> None:
        """End all connections and threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(_END)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._refusing:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), 5)
                except OSError:
                    client.close()
                    continue
                pair = (client, server)
                with self._lock:
                    self._pairs.add(pair)
                self._start(self._forward, client, server, pair, False)
                self._start(self._forward, server, client, pair, True)

    def _forward(
        self,
        source: socket.socket,
        sink: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        replies: bool,
    ) -> None:
        with suppress(OSError):  # reset by one side or the other
            while data := source.recv(65536):
                if replies and self._losing:
                    self.lost.set()
                else:
                    sink.sendall(data)
        _shut(pair)


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    for one in pair:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy before the port ``target``."""
    one = Proxy(target)
    try:
        yield one
    finally:
        one.close()
