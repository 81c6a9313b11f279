"""What ``rdzv_configs`` may say where nodes meet through a ledger, and what its values mean.

torchrun hands all values over as text, ``launch_agent`` as what they are. This module may import
nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llutil.errors import ConfigError, Problem

__all__ = ["ACCESS", "TIMES", "LedgerOptions"]

TIMES: Mapping[str, float] = {"timeout": 900.0, "last_call_timeout": 30.0, "lease_ttl": 10.0}
"""Times in seconds, and their defaults."""

_BOTH = frozenset({"namespace", "user", "password", "cacert", "cert", "key"})

ACCESS: Mapping[str, frozenset[str]] = {
    "etcd": _BOTH | {"server_name"},
    "zeus-adapter": _BOTH | {"sasl_mechanism"},
}
"""What is text: where in the store, and how to get there, by backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """``rdzv_configs``, read and checked. ``access`` has those of ``ACCESS`` for the backend that
    are given and not empty.
    """

    timeout: float
    last_call: float
    lease_ttl: float
    access: Mapping[str, str]

    @classmethod
    def read(cls, backend: str, configs: Mapping[str, Any]) -> LedgerOptions:
        """The options in ``configs``, for a backend of ``ACCESS``.

        :raises ConfigError: a key is unknown, or a value not of its kind; all problems are listed.
        """
        problems: list[Problem] = []
        texts = ACCESS[backend]
        keys = texts.union(TIMES)
        if unknown := sorted(configs.keys() - keys):
            text = (
                f"has {', '.join(map(repr, unknown))}, which this rendezvous does not know; it knows "
                f"{', '.join(sorted(keys))}"
            )
            problems.append(Problem("rdzv_configs", text))
        times = {}
        for key, default in TIMES.items():
            value = configs.get(key, default)
            times[key] = seconds = _seconds(value)
            if not seconds >= 0 or (seconds == 0 and key != "last_call_timeout"):
                text = f"has {key!r}: {value!r}; wanted a positive number of seconds"
                problems.append(Problem("rdzv_configs", text))
        problems += [
            Problem("rdzv_configs", f"has {key!r} as a {type(configs[key]).__name__}; wanted text")
            for key in sorted(texts & configs.keys())
            if not isinstance(configs[key], str | None)
        ]
        if problems:
            raise ConfigError(problems)
        return cls(
            timeout=times["timeout"],
            last_call=times["last_call_timeout"],
            lease_ttl=times["lease_ttl"],
            access={key: configs[key] for key in sorted(texts) if configs.get(key)},
        )


def _seconds(value: object) -> float:
    """A number, also written as text; NaN if it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        seconds = float(value)
    except ValueError:
        return math.nan
    return seconds if math.isfinite(seconds) else math.nan
