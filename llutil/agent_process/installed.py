"""What is installed under the agent's interpreter.

This module may import the standard library, ``llutil.errors`` and ``llutil.task_link``. It imports
none of what it looks for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys

from llutil.errors import ConfigError
from llutil.task_link import messages

__all__ = ["check_torch", "hello_message"]


def check_torch() -> None:
    """Check that torch can be found.

    :raises ConfigError: it cannot.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            f"python {sys.executable!r} has no torch; install "
            "airflow-provider-elastic-launch[torch] there, or give an interpreter that has it"
        )


def hello_message() -> messages.Hello:
    """The agent's first message."""
    return messages.Hello(
        os.getpid(),
        sys.executable,
        torch=_installed_version("torch"),
        python_version=platform.python_version(),
        launcher=_installed_version("airflow-provider-elastic-launch"),
    )


def _installed_version(distribution: str) -> str:
    """The version of the installed ``distribution``, without an import; "" if it is missing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
