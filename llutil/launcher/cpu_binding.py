"""Which CPUs each rank of this node is bound to, with ``numa_options``.

torch knows where a GPU is only after it has called the CUDA runtime, which an agent never does. So
a short-lived process asks torch; it runs ``main``. Otherwise this module imports only the standard
library, ``llutil.errors``, ``llutil.numa_options`` and the command of an interpreter.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from llutil.errors import ConfigError
from llutil.numa_options import NumaOptions

__all__ = ["cpus_of_ranks", "main"]

_log = logging.getLogger(__name__)

# Seconds. Importing torch and starting the driver can take long.
_DEADLINE = 120.0


def cpus_of_ranks(options: NumaOptions | None, nproc: int) -> list[list[int]]:
    """The CPUs of each of ``nproc`` ranks, by local rank; empty if they are not bound.

    :raises ConfigError: they were not found, and the options do not allow to go on without.
    """
    if options is None:
        return []
    from llutil.agent.start_methods.starter import interpreter_command

    call = f"from llutil.launcher.cpu_binding import main; main({options.affinity_mode!r}, {nproc})"
    try:
        done = subprocess.run(
            interpreter_command(call),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=True,
        )
        found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
        if len(found) == nproc and all(found):
            return found
        why = f"torch names no CPU for a rank: {found}"
    except subprocess.TimeoutExpired:
        why = f"torch did not find them within {_DEADLINE:.0f} s"
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        why = said.splitlines()[-1][-300:]
    text = f"numa_options wants CPUs near the GPU of each rank, but {why}"
    if not options.should_fall_back_if_binding_fails:
        raise ConfigError(
            f"{text}. Each rank needs a GPU; leave numa_options out where it has none"
        )
    _log.warning("%s; ranks are not bound", text)
    return []


def main(mode: str, nproc: int) -> None:
    """Print the CPUs of each rank, for the process that asked for them.

    They are torch's (2.13), without its demand that the program numactl is installed.
    """
    from torch.numa import binding

    options = binding.NumaOptions(binding.AffinityMode(mode))
    find = binding._get_logical_cpus_to_bind_to  # noqa: SLF001 - torch has no public function
    cpus = [sorted(find(gpu_index=rank, numa_options=options)) for rank in range(nproc)]
    sys.stdout.write(f"\n{json.dumps(cpus)}\n")
