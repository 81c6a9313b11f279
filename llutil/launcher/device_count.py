"""How many workers a node gets when the configuration says "cpu", "gpu" or "auto".

GPUs are counted in a short-lived process: a process that has called the CUDA runtime can no longer
fork workers that use it. This module may import only the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import os
import subprocess
import sys

from llutil.errors import ConfigError

__all__ = ["worker_count"]

# Seconds. Importing torch and starting the driver can take long.
_COUNT_DEADLINE = 120.0
_COUNT_CODE = (
    "import torch; a = torch.accelerator; print(a.device_count() if a.is_available() else 0)"
)


def worker_count(wanted: int | str) -> int:
    """The number of workers: ``wanted`` itself, or what this host has.

    "cpu" means the CPUs that this process may use. "gpu" means the accelerators that torch sees, so
    CUDA_VISIBLE_DEVICES is respected. "auto" means the accelerators if there are any, else the
    CPUs.

    :raises ConfigError: "gpu" was asked for and there is none, or counting failed.
    """
    if isinstance(wanted, int):
        return wanted
    match wanted:
        case "cpu":
            return _cpu_count()
        case "gpu":
            count = _accelerator_count()
            if not count:
                raise ConfigError(
                    "nproc_per_node is 'gpu', but torch sees no accelerator on this host; "
                    "use 'auto' or a number, or check CUDA_VISIBLE_DEVICES and the installed torch"
                )
            return count
        case "auto":
            return _accelerator_count() or _cpu_count()
        case _:
            raise ConfigError(
                f"nproc_per_node is {wanted!r}; wanted a number, 'cpu', 'gpu' or 'auto'"
            )


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0))


def _accelerator_count() -> int:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COUNT_CODE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COUNT_DEADLINE,
            check=True,
        )
        return int(done.stdout.split()[-1])
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"torch did not count the accelerators of this host within {_COUNT_DEADLINE:.0f} s; "
            "give nproc_per_node as a number"
        ) from error
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ConfigError(
            "torch could not count the accelerators of this host; give nproc_per_node as a number, "
            f"or mend this: {said[-500:]}"
        ) from error
