"""Which CPUs each rank of this node is bound to, with ``numa_options``.

torch knows where a GPU is only after it has called the CUDA runtime, which an agent never does. So
a short-lived process asks torch; it runs ``main``. Otherwise this module imports only the standard
library, ``llutil.errors``, ``llutil.launcher.numa_options`` and ``asked_of_torch``.
"""

from __future__ import annotations

import logging
from inspect import signature

from llutil.errors import ConfigError
from llutil.launcher.asked_of_torch import NoAnswerError, answer, asked_of_torch
from llutil.launcher.numa_options import NumaOptions

__all__ = ["cpus_of_ranks", "main"]

_log = logging.getLogger(__name__)


def cpus_of_ranks(options: NumaOptions | None, nproc: int) -> list[list[int]]:
    """The CPUs of each of ``nproc`` ranks, by local rank; empty if they are not bound.

    :raises ConfigError: they were not found, and the options do not allow to go on without.
    """
    if options is None:
        return []
    call = f"from llutil.launcher.cpu_binding import main; main({options.affinity_mode!r}, {nproc})"
    try:
        found: list[list[int]] = asked_of_torch(call)
        if len(found) == nproc and all(found):
            return found
        why = f"torch names no CPU for a rank: {found}"
    except NoAnswerError as error:
        why = str(error)
    text = f"numa_options wants CPUs near the GPU of each rank, but {why}"
    if not options.should_fall_back_if_binding_fails:
        raise ConfigError(
            f"{text}. Each rank needs a GPU; leave numa_options out where it has none"
        )
    _log.warning("%s; ranks are not bound", text)
    return []


def main(mode: str, nproc: int) -> None:
    """Answer with the CPUs of each rank, for the process that asked for them.

    They are torch's (2.13), without its demand that the program numactl is installed. torch 2.14
    calls a rank's accelerator ``device_index``, where 2.13 has ``gpu_index``.
    """
    from torch.numa import binding

    options = binding.NumaOptions(binding.AffinityMode(mode))
    find = binding._get_logical_cpus_to_bind_to  # noqa: SLF001 - torch has no public function
    (index,) = signature(find).parameters.keys() - {"numa_options"}
    answer([sorted(find(**{index: rank}, numa_options=options)) for rank in range(nproc)])
