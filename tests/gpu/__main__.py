"""``make gpu``: what can only be tried on a GPU, on one of them, in at most 4 minutes; a table at
the end.

    python -m tests.gpu [--dry] [part ...]

It is no part of the tests. Where torch sees no GPU, it says so and ends with the status 2.
``--dry`` runs the parts on the CPU, as far as they mean anything there: that tries this program,
not a device. A part that fails, or does not end in time, is in the table, and the status is 1.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from llutil.errors import ConfigError
from llutil.launcher.asked_of_torch import NoAnswerError, answer, asked_of_torch
from llutil.launcher.device_count import worker_count
from tests.gpu.parts import PARTS
from tests.gpu.table import Row, table

_ALL = 230.0  # seconds for everything
_PART = 75.0  # seconds for one part
_ROOT = Path(__file__).parents[2]
_ONLY_ON_A_GPU = ("nccl twice",)


def main(words: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    parser.add_argument("--dry", action="store_true", help="on the CPU: tries this program alone")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of: {', '.join(PARTS)}")
    given = parser.parse_args(words)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not given.dry and (why := _no_gpu()):
        print(f"nothing was tried: {why}")
        return 2
    began = time.monotonic()
    rows = []
    for name in given.parts or PARTS:
        if given.dry and name in _ONLY_ON_A_GPU:
            rows.append(Row(name, None, 0.0, "needs a GPU"))
            continue
        left = _ALL - (time.monotonic() - began)
        rows.append(_run(name, "cpu" if given.dry else "cuda", min(_PART, left)))
        print(table(rows[-1:]), flush=True)
    print(f"\n{'a dry run on the CPU' if given.dry else _device()}\n\n{table(rows)}")
    return 1 if any(row.good is False for row in rows) else 0


def _run(name: str, device: str, limit: float) -> Row:
    """One part, in a process group of its own, which ends with it."""
    began = time.monotonic()
    if limit <= 1:
        return Row(name, False, 0.0, "no time was left")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.parts", name, device],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, trouble = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)  # its guardian ends what it has started
            process.communicate()
            return Row(name, False, time.monotonic() - began, f"did not end within {limit:.0f} s")
    last = (said if process.returncode == 0 else trouble).strip().splitlines()[-1:]
    if process.returncode:
        print(trouble[-6000:], file=sys.stderr)
    return Row(name, process.returncode == 0, time.monotonic() - began, " ".join(last))


def _no_gpu() -> str:
    """Why nothing can be tried; empty if there is a GPU."""
    try:
        worker_count("gpu")
        return asked_of_torch("from tests.gpu.__main__ import tell_trouble; tell_trouble()")
    except (ConfigError, NoAnswerError) as error:
        return str(error)


def tell_trouble() -> None:
    """Answer with why torch cannot use CUDA, for the process that asked."""
    import torch

    if torch.version.cuda is None:
        answer(f"torch {torch.__version__} is built without CUDA")
    else:
        answer("" if torch.cuda.is_available() else "torch sees no CUDA device")


def _device() -> str:
    return str(asked_of_torch("from tests.gpu.__main__ import tell_device; tell_device()"))


def tell_device() -> None:
    """Answer with the device, torch and NCCL, for the process that asked."""
    import torch

    version = ".".join(map(str, torch.cuda.nccl.version()))
    answer(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, NCCL {version}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
