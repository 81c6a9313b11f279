"""The launcher's public names, for callers and for their workers.

``LaunchConfig``, ``elastic_launch`` and ``launch_agent`` start jobs; ``Events`` and ``Std`` are
values for them; ``worker`` and ``breakpoint`` are what a worker calls. A name is imported when it
is first used (PEP 562), so a DAG file or a worker imports only what it needs. Only running a job
imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llutil import worker
    from llutil.debugger.breakpoint import breakpoint  # noqa: A004 - it stands in for Python's
    from llutil.events.events import Events
    from llutil.launcher.config import LaunchConfig
    from llutil.launcher.launch_agent import elastic_launch
    from llutil.launcher.numa_options import NumaOptions
    from llutil.std import Std

__all__ = [
    "Events",
    "LaunchConfig",
    "NumaOptions",
    "Std",
    "breakpoint",
    "elastic_launch",
    "warm_workers",
    "worker",
]

_MODULES = {
    "Events": "llutil.events.events",
    "LaunchConfig": "llutil.launcher.config",
    "NumaOptions": "llutil.launcher.numa_options",
    "Std": "llutil.std",
    "breakpoint": "llutil.debugger.breakpoint",
    "elastic_launch": "llutil.launcher.launch_agent",
    "warm_workers": "llutil.launcher.shared_forkserver",
}


def __getattr__(name: str) -> Any:
    if name == "worker":
        return import_module("llutil.worker")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
