"""Why an agent could not be started, by the error of the operating system. Nothing here acts.

This module may import only the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from llutil.errors import ConfigError, InfrastructureError, LaunchError

__all__ = ["NO_PROCESS", "start_error", "unwritable"]

NO_PROCESS = "this worker cannot start another process"
"""What all errors begin with that are about no room for a process."""

_AWAY = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""What a file system says that is away for now: its server or its disk does not answer."""


def start_error(
    python: str, cwd: str | None, env: Mapping[str, str], error: OSError
) -> LaunchError:
    """The error that says why the agent could not be started."""
    if error.errno == errno.ENOMEM:
        return InfrastructureError(f"{NO_PROCESS}: it has no memory left for one ({error})")
    if error.errno == errno.E2BIG:
        longest = max(env, key=lambda name: len(env[name]), default="")
        return ConfigError(
            "the environment and the arguments of the agent are longer than this worker's kernel "
            f"takes; the longest variable is {longest!r}, of {len(env.get(longest, ''))} "
            "characters: give large values by op_kwargs, or by a file"
        )
    if error.errno in _AWAY:
        return InfrastructureError(
            f"the file system of {(error.filename or python)!r} does not answer ({error.strerror})"
        )
    # Unlike Path.is_dir, this one says False of a folder below one that may not be searched.
    if cwd is not None and not os.path.isdir(cwd):  # noqa: PTH112
        return ConfigError(f"cwd {cwd!r} is not a folder on this worker")
    return ConfigError(
        f"python {python!r} cannot be started on this worker ({error.strerror}): "
        "wanted an interpreter that has airflow-provider-elastic-launch[torch]"
    )


def unwritable(env: Mapping[str, str], error: UnicodeEncodeError) -> ConfigError:
    """The error that says what the agent cannot be given in this worker's locale."""
    wrong = next((repr(name) for name in env if not _is_writable(f"{name}{env[name]}")), "")
    return ConfigError(
        f"{f'the variable {wrong}' if wrong else 'a path'} holds a character that this worker "
        f"cannot write: its locale is {error.encoding}; wanted text that fits, or LC_ALL=C.UTF-8"
    )


def _is_writable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
