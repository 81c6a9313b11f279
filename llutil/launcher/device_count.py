"""How many workers a node gets when the configuration names a kind of device, or "auto".

Accelerators are counted in a short-lived process, which runs ``main`` and imports torch. Otherwise
this module imports only the standard library, ``llutil.errors``, ``asked_of_torch`` and a constant
of ``output_checks``.
"""

from __future__ import annotations

import os

from llutil.errors import ConfigError
from llutil.launcher.asked_of_torch import NoAnswerError, answer, asked_of_torch
from llutil.launcher.output_checks import MOST_WORKERS

__all__ = ["accelerator_count", "main", "worker_count"]


def worker_count(wanted: int | str) -> int:
    """The number of workers: ``wanted`` itself, or what this host has.

    "cpu" means the CPUs that this process may use. "gpu" means the accelerators that torch sees, so
    CUDA_VISIBLE_DEVICES is respected. "auto" means the accelerators if there are any, else the
    CPUs. "xpu", and the name that a plugin has registered with torch, mean devices of that kind.

    :raises ConfigError: a kind was asked for and there is none, or more than a node can have
        workers, torch does not know it, or counting failed.
    """
    if isinstance(wanted, int):
        return wanted
    count = _count_of_kind(wanted)
    if count > MOST_WORKERS:
        raise ConfigError(
            f"nproc_per_node is {wanted!r}, which is {count} on this host; a node has at most "
            f"{MOST_WORKERS} workers, so give a number"
        )
    return count


def _count_of_kind(wanted: str) -> int:
    if wanted == "cpu":
        return _cpu_count()
    count = _count_apart(wanted)
    if count is None:
        raise ConfigError(
            f"nproc_per_node is {wanted!r}, which the torch of this host does not know; wanted a "
            "number, 'cpu', 'gpu', 'xpu', 'auto', or the name that an installed plugin registers"
        )
    if count:
        return count
    if wanted == "auto":
        return _cpu_count()
    variable = "CUDA_VISIBLE_DEVICES" if wanted == "gpu" else "what the driver shows"
    kind = "accelerator" if wanted == "gpu" else wanted
    raise ConfigError(
        f"nproc_per_node is {wanted!r}, but torch sees no {kind} on this host; "
        f"use 'auto' or a number, or check {variable} and the installed torch"
    )


def accelerator_count(wanted: str) -> int | None:
    """How many devices of a kind torch sees here; None if it does not know the kind.

    It is what torchrun does (torch 2.13, ``determine_local_world_size``), but for "gpu", which
    torchrun takes for CUDA alone.
    """
    import torch
    from torch._C import _get_privateuse1_backend_name
    from torch.utils.backend_registration import _get_custom_mod_func

    match wanted:
        case "auto" | "gpu":
            accelerator = torch.accelerator
            return accelerator.device_count() if accelerator.is_available() else 0
        case "xpu":
            return torch.xpu.device_count() if torch.xpu.is_available() else 0
        case _ if wanted == _get_privateuse1_backend_name():
            try:
                if not _get_custom_mod_func("is_available")():
                    return 0
                return int(_get_custom_mod_func("device_count")())
            except RuntimeError:  # no plugin has registered a module for it
                return None
        case _:
            return None


def main(wanted: str) -> None:
    """Answer with the count, for the process that asked for it."""
    answer(accelerator_count(wanted))


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0))


def _count_apart(wanted: str) -> int | None:
    """``accelerator_count`` of a process of its own."""
    call = f"from llutil.launcher.device_count import main; main({wanted!r})"
    try:
        count: int | None = asked_of_torch(call)
    except NoAnswerError as error:
        raise ConfigError(
            "torch could not count the accelerators of this host; give nproc_per_node as a number, "
            f"or mend this: {error}"
        ) from error
    return count
