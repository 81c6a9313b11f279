"""Binds a rank to the CPUs that its agent has chosen for it.

``llutil.launcher.cpu_binding`` chooses them, by ``numa_options``. This module may import only the
standard library and ``llutil.errors``.
"""

from __future__ import annotations

import os

from llutil.errors import ConfigError

__all__ = ["CPUS", "bind_to_cpus"]

CPUS = "LLUTIL_CPUS"
"""The environment variable that holds the numbers of the CPUs to which a rank binds itself."""


def bind_to_cpus() -> None:
    """Bind this process, which has one thread yet, to the CPUs of ``numa_options``."""
    if cpus := os.environ.get(CPUS):
        try:
            os.sched_setaffinity(0, map(int, cpus.split(",")))
        except OSError as error:
            raise ConfigError(
                f"numa_options binds this rank to the CPUs {cpus}, which it may not use "
                f"({error}): leave numa_options out, or allow the launching process these CPUs"
            ) from error
