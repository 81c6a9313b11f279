"""Takes secrets out of texts that a task's state shows: those that Airflow masks in logs, and those
of the launch. This module may import Airflow's masker, ``llutil.launcher.config`` and
``llutil.secret``.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow.sdk.log import redact

from llutil.launcher.config import LaunchConfig
from llutil.secret import Secret

__all__ = ["hider"]

_SHORTEST = 4
"""Characters of a secret that is looked for; a shorter one would take letters out of words."""


def hider(config: LaunchConfig | None) -> Callable[[str], str]:
    """What takes the secrets of ``config``, if there is one, and all that Airflow knows, out of a
    text.
    """
    options = {} if config is None else config.rdzv_configs
    values = (value for value in options.values() if isinstance(value, Secret))
    secrets = [str(value) for value in values if len(value) >= _SHORTEST]

    def hide(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return str(redact(text))

    return hide
