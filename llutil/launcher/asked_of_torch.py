"""Asks torch about this host's devices in a short-lived process.

A process that has called the CUDA runtime can no longer fork workers that use it. So the process
that asks imports no torch. This module imports only the standard library and the command of an
interpreter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["NoAnswerError", "answer", "asked_of_torch"]

_DEADLINE = 120.0
"""Seconds. Importing torch and starting the driver can take long."""


class NoAnswerError(Exception):
    """The process has given no answer; the text says why, in one line."""


def asked_of_torch(call: str) -> Any:
    """What the program ``call`` has given to ``answer``, run by an interpreter as a worker's is.

    :raises NoAnswerError: it failed, or took longer than 120 s.
    """
    from llutil.agent.start_methods.starter import interpreter_command

    try:
        done = subprocess.run(
            interpreter_command(call),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"torch gave no answer within {_DEADLINE:.0f} s") from error
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", "") or "").strip() or str(error)
        raise NoAnswerError(said.splitlines()[-1][-300:]) from error


def answer(value: Any) -> None:
    """Print ``value``, which JSON can hold, for the process that asked. A library may have printed
    something before.
    """
    sys.stdout.write(f"\n{json.dumps(value)}\n")
