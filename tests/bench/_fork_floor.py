"""What the kernel takes to fork a process that has torch, and to end the fork: the least that a
worker of a fork server can take. ``python -m tests.bench._fork_floor 100`` prints, as JSON, the
seconds of each. The environment says what pages the C heap lies on. With a further word, all memory
of the process that no file stands behind is put on huge pages first, and that takes ``collapse``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import struct
import sys
import time
from pathlib import Path

__all__: list[str] = []

_PAUSE = 0.002  # seconds
_HUGE = 1 << 21
_MADV_COLLAPSE = 25  # Linux 6.1


def _main(count: int, *, collapse: bool) -> None:
    import torch.distributed  # noqa: F401 - what is forked

    from llutil.agent.start_methods import forkserver_main  # noqa: F401 - as above

    gc.freeze()
    gc.disable()
    began = time.monotonic()
    if collapse:
        _collapse()
    took = time.monotonic() - began
    times = [_fork_and_end() for _ in range(count)]
    forks, ends = zip(*times, strict=True)
    print(json.dumps({"fork": forks, "end": ends, "collapse": [took]}))


def _collapse() -> None:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, file, *name = line.split(maxsplit=5)
        if file != "0" or rights[:2] != "rw" or name not in ([], ["[heap]"]):
            continue
        begin, end = (int(number, 16) for number in place.split("-"))
        for address in range(-(-begin // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
            libc.madvise(address, _HUGE, _MADV_COLLAPSE)  # what is not possible is left out


def _fork_and_end() -> tuple[float, float]:
    """Seconds of the fork, and from the end of a fork that does nothing until it is reaped."""
    read, write = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        time.sleep(_PAUSE)
        os.write(write, struct.pack("d", time.monotonic()))
        os._exit(0)
    forked = time.monotonic()
    os.waitpid(pid, 0)
    ended = time.monotonic()
    (left,) = struct.unpack("d", os.read(read, 8))
    os.close(read)
    os.close(write)
    return forked - began, ended - left


if __name__ == "__main__":
    _main(int(sys.argv[1]), collapse=len(sys.argv) > 2)
