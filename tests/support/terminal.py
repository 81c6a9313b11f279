"""A program on a terminal, and somebody who types."""

from __future__ import annotations

import os
import select
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Terminal"]

LIMIT = 60.0  # seconds


class Terminal:
    """A program that makes its standard input its terminal, and somebody who types.

    ``size`` is columns and lines; by default the terminal does not know its size. ``popen`` stands
    in for ``subprocess.Popen``.
    """

    def __init__(
        self,
        *command: str,
        env: dict[str, str],
        size: tuple[int, int] | None = None,
        popen: Callable[..., Any] = subprocess.Popen,
    ) -> None:
        self._ours, programs = os.openpty()
        if size is not None:
            termios.tcsetwinsize(programs, (size[1], size[0]))
        self._shown = b""
        self._process = popen(
            command,
            stdin=programs,
            stdout=programs,
            stderr=programs,
            pass_fds=(),
            env=env,
            start_new_session=False,
        )
        os.close(programs)

    def until(self, text: str) -> str:
        """What is shown next, up to ``text``."""
        deadline = time.monotonic() + LIMIT
        while text.encode() not in self._shown:
            ready = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"no {text!r} in {self._shown!r}"
            try:
                self._shown += os.read(self._ours, 1 << 16)
            except OSError as error:  # the program has ended
                raise AssertionError(f"no {text!r} in {self._shown!r}") from error
        before, _, self._shown = self._shown.partition(text.encode())
        return before.decode()

    def write(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                assert self._process.wait(LIMIT) == 0
        finally:
            os.close(self._ours)  # a program that still runs gets SIGHUP
            self._process.wait(LIMIT)
