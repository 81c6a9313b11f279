"""Whether an agent that is forked by this process starts as a fresh one that a task starts would.

A fresh process inherits from its task what the kernel keeps for each process, and reads a part of
its environment once. A fork has of both what its server has. What can be set afterwards is set: the
environment, the working directory, descriptors, the session. All else must be equal, or the server
refuses. Nothing here changes a process. This module may import only the standard library and
``llutil.agent.worker_side.fork_environment``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llutil.agent.worker_side.fork_environment import READ_ONCE, unsettable_after_fork

__all__ = ["different_variables", "inherited", "server_environment"]

_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn"),
    *("Cpus_allowed", "Mems_allowed", "Speculation_Store_Bypass", "SpeculationIndirectBranch"),
)
"""The lines of ``/proc/<pid>/status`` that a process inherits from its parent."""

_FILES = (
    *("limits", "cgroup", "oom_score_adj", "personality", "loginuid", "sessionid", "attr/current"),
    "coredump_filter",
)
"""The files of ``/proc/<pid>`` of the same kind. One that a kernel has not is equal to itself."""

_NAMESPACES = (
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid_for_children",
    "time_for_children",
    "user",
    "uts",
)
_SCHEDULING = {"nice": 16, "real-time priority": 37, "scheduling policy": 38}
"""Indices of fields of ``/proc/<pid>/stat`` after the name (proc(5))."""

_READ_BY_IMPORTS = (
    # torch and what it imports, in Python (2.13).
    *("TORCHDYNAMO_", "TORCHEXPORT_", "TORCHINDUCTOR_", "COMPILE_STROBELIGHT_", "FX_", "TQDM_"),
    *("LOGLEVEL", "TMP", "TEMP", "HOME"),
    # Libraries of GPUs that torch loads: their native code may read what it likes.
    *("CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "MIOPEN_"),
)
"""Beginnings of the names of further variables that are, or may be, read when an agent's modules
are imported.
"""
_READ_LATER = ("CUDA_VISIBLE_DEVICES",)
"""Exceptions: the driver reads them when CUDA is first called, which a server never does."""
_FOR_STARTS = ("PATH",)
"""What a server needs beside, to start processes."""


def inherited(pid: int | str) -> dict[str, str]:
    """What the process ``pid`` has given, or would give, to a child; as far as ``/proc`` tells."""
    folder = Path("/proc", str(pid))
    found: dict[str, str] = {}
    for line in _text(folder / "status").splitlines():
        name, _, value = line.partition(":")
        if name in _STATUS:
            found[name] = value.strip()
    found |= {name: _text(folder / name).strip() for name in _FILES}
    for name in (*(f"ns/{one}" for one in _NAMESPACES), "root"):
        with suppress(OSError):
            found[name] = os.readlink(folder / name)  # noqa: PTH115 - no path, but a text
    fields = _text(folder / "stat").rpartition(")")[2].split()
    if fields:
        found |= {name: fields[index] for name, index in _SCHEDULING.items()}
    return found


def different_variables(server: Mapping[str, str], agent: Mapping[str, str]) -> list[str]:
    """The names of the variables of an agent's environment that can no longer be set in a fork of
    ``server``, a process that was started with that environment.
    """
    others = {
        name
        for name in server.keys() | agent.keys()
        if name.startswith(_READ_BY_IMPORTS)
        and name not in _READ_LATER
        and server.get(name) != agent.get(name)
    }
    return sorted({*unsettable_after_fork(server, agent), *others})


def server_environment(task: Mapping[str, str]) -> dict[str, str]:
    """What a server has of the environment ``task``: what is read once, and nothing else.

    A task's connections and keys are not for the tasks after it.
    """
    wanted = (*READ_ONCE, *_READ_BY_IMPORTS, *_FOR_STARTS)
    return {
        name: value
        for name, value in task.items()
        if name.startswith(wanted) and name not in _READ_LATER
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
