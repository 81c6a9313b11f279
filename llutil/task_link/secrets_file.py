"""The file through which a task gives its agent the secrets of a job, beside the ``Spec``.

An agent forks its fork server, and from that its workers, after it has read the ``Spec``. What the
agent has in its memory then is in every worker's memory too. So a ``Spec`` is sent without its
secrets, and the agent reads these from an inherited descriptor when the fork server is there. The
file is in memory and has no name: nothing of it is on a disk. This module may import only the
standard library, ``llutil.launcher.config``, ``llutil.secret`` and ``llutil.task_link.messages``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

import msgspec

from llutil.launcher.config import LaunchConfig
from llutil.secret import Secret
from llutil.task_link.messages import Spec

__all__ = ["open_secrets", "take_secrets", "without_secrets"]


def without_secrets(spec: Spec) -> tuple[Spec, dict[str, str]]:
    """``spec`` without the secrets among the options of its rendezvous, and these."""
    configs = spec.config.rdzv_configs
    secrets = {key: str(value) for key, value in configs.items() if isinstance(value, Secret)}
    shown = {key: value for key, value in configs.items() if key not in secrets}
    return msgspec.structs.replace(spec, config=replace(spec.config, rdzv_configs=shown)), secrets


def open_secrets(secrets: dict[str, str]) -> int:
    """The descriptor of a file with ``secrets``, for an agent to inherit; the caller closes it."""
    fd = os.memfd_create("llutil-secrets", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(secrets).encode())
    return fd


def take_secrets(config: LaunchConfig, fd: int) -> LaunchConfig:
    """``config`` with the secrets in the file ``fd``, which is closed."""
    with open(fd, "rb") as file:
        file.seek(0)
        return replace(config, rdzv_configs={**config.rdzv_configs, **json.load(file)})
