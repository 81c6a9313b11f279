"""How many workers a node gets when the configuration says "cpu", "gpu" or "auto".

GPUs are counted in a throw-away process: a process that has asked the CUDA runtime can no longer
fork workers that use it. This module may import nothing but the standard library and
``llutil.errors``.
"""

from __future__ import annotations

import os
import subprocess
import sys

from llutil.errors import ConfigError

__all__ = ["worker_count"]

_COUNT_DEADLINE = (
    120.0  # seconds: importing torch and starting a driver can be slow, but not slower
)
_COUNT = "import torch; a = torch.accelerator; print(a.device_count() if a.is_available() else 0)"


def worker_count(wanted: int | str) -> int:
    """The number of workers: ``wanted`` itself, or what this host has.

    "cpu" means the CPUs that this process may use, "gpu" the accelerators that torch sees (so that
    CUDA_VISIBLE_DEVICES counts), "auto" the latter if there are any, else the former.

    :raises ConfigError: "gpu" was asked for and there is none, or counting failed.
    """
    if isinstance(wanted, int):
        return wanted
    match wanted:
        case "cpu":
            return _cpus()
        case "gpu":
            count = _accelerators()
            if not count:
                raise ConfigError(
                    "nproc_per_node is 'gpu', but torch sees no accelerator on this host; "
                    "use 'auto' or a number, or check CUDA_VISIBLE_DEVICES and the installed torch"
                )
            return count
        case "auto":
            return _accelerators() or _cpus()
        case _:
            raise ConfigError(
                f"nproc_per_node is {wanted!r}; wanted a number, 'cpu', 'gpu' or 'auto'"
            )


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _accelerators() -> int:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COUNT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COUNT_DEADLINE,
            check=True,
        )
        return int(done.stdout.split()[-1])
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"counting the accelerators of this host took more than {_COUNT_DEADLINE:.0f} s; give "
            "nproc_per_node as a number"
        ) from error
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ConfigError(
            f"the accelerators of this host cannot be counted: {said[-500:]}"
        ) from error
