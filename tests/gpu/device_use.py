"""What shows, in ``/proc``, that a process uses a CUDA device: the driver's library among its
mappings, and device files among its descriptors.

This module only reads, and may import nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DeviceUse", "found_in", "is_touched", "use_of"]

_DRIVER = re.compile(r"/libcuda\.so[.\d]*$")
_DEVICE = re.compile(r"/dev/(nvidia\S*|dxg)$")


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Whether the driver is mapped, and the device files that are open."""

    driver: bool
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ["libcuda mapped"] if self.driver else []
        parts += [f"{device} open" for device in self.devices]
        return ", ".join(parts) or "nothing of CUDA"


def found_in(mappings: str, open_files: Iterable[str]) -> DeviceUse:
    """What the text of ``/proc/<pid>/maps`` and the targets of ``/proc/<pid>/fd`` show."""
    devices = {file for file in open_files if _DEVICE.search(file)}
    return DeviceUse(
        driver=any(_DRIVER.search(line) for line in mappings.splitlines()),
        devices=tuple(sorted(devices)),
    )


def use_of(pid: int, proc: Path = Path("/proc")) -> DeviceUse:
    """What a process that runs shows.

    :raises OSError: it is gone, or may not be looked at.
    """
    folder = proc / str(pid)
    files = []
    for link in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            files.append(str(link.readlink()))
    return found_in((folder / "maps").read_text(errors="replace"), files)


def is_touched(use: DeviceUse, imported: DeviceUse) -> bool:
    """Whether a process has touched CUDA, beyond what an interpreter shows that has only imported
    torch (``imported``): a build of torch may map the driver's library at once.
    """
    return bool(set(use.devices) - set(imported.devices)) or (use.driver and not imported.driver)
