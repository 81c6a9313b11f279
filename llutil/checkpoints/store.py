"""What a store of checkpoints has to do, and which one a path or a URI names.

A store is the folder of one job. Names in it are relative, with ``/`` between their parts. This
module may import only the standard library and ``llutil.errors``. The stores are imported when one
is opened, so that a local folder never needs fsspec.
"""

from __future__ import annotations

import errno
import uuid
from contextlib import suppress
from typing import Protocol
from urllib.parse import unquote

from llutil.errors import ConfigError, InfrastructureError

__all__ = ["PROBE", "Store", "check_store", "open_store"]

PROBE = ".probe-"
"""How the names begin of folders that only try whether a store can be written into."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Store(Protocol):
    """The folder of one job. Each method raises ``OSError``, as files do."""

    poll: tuple[float, float]
    """Seconds between two looks at a folder: at first, and after a long wait."""

    def path(self, name: str) -> str:
        """What user code and torch call the folder ``name``."""
        ...

    def make(self, name: str) -> None:
        """Make the folder ``name``, and those above it. It may be there."""
        ...

    def put(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write the file ``name`` at once or not at all; ``durable`` waits until it is on disk.

        It does not make a folder: in one that was removed it raises, where a store has folders.
        """
        ...

    def get(self, name: str) -> bytes:
        """The content of the file ``name``. It raises ``FileNotFoundError`` without it."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of all that lies in the folder, as it is now; none without the folder."""
        ...

    def files(self, folder: str) -> dict[str, int]:
        """The size of each file below the folder, by its path in it; none without the folder.

        It raises where it cannot look: a file that is left out is one that was lost.
        """
        ...

    def sync(self, folder: str) -> None:
        """Wait until all files below the folder are on disk, as far as this host wrote them."""
        ...

    def remove(self, folder: str) -> None:
        """Remove the folder at once, or its marker first. Without the folder it does nothing."""
        ...


def open_store(folder: str) -> Store:
    """The store at ``folder``: a path, a ``file:`` URI, or any URI that fsspec knows.

    :raises ConfigError: its scheme is unknown, or what serves it is not installed.
    """
    if "://" not in folder:
        from llutil.checkpoints.local_store import LocalStore

        return LocalStore(folder)
    # Not by urlsplit: to fsspec a "?" or "#" is part of the name, as it is in the URIs of stores.
    scheme, _, rest = folder.partition("://")
    if scheme.lower() in ("file", "local"):
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(
                f"{folder!r} is a folder of the host {host!r}; wanted a folder of this "
                "host, as in file:///mnt/checkpoints"
            )
        from llutil.checkpoints.local_store import LocalStore

        return LocalStore(unquote(slash + path))
    try:
        from llutil.checkpoints.remote_store import RemoteStore
    except ImportError as error:
        raise ConfigError(
            f"checkpoints at {folder!r} need fsspec, which is not installed here; torch and "
            "Airflow bring it"
        ) from error
    return RemoteStore(folder)


def check_store(folder: str) -> None:
    """Check that checkpoints can be written into ``folder``, before a job relies on it.

    It leaves the folder, and nothing in it.

    :raises ConfigError: they cannot.
    :raises InfrastructureError: there is no space left at present.
    """
    store = open_store(folder)
    # Another name than those of what is removed: any process removes these at any time.
    probe = f"{PROBE}{uuid.uuid4().hex}"
    try:
        store.make(probe)
        store.put(f"{probe}/file", b"x", durable=True)  # as a marker is
        if store.get(f"{probe}/file") != b"x":
            raise OSError("what was written is not what is read")
        store.remove(probe)
    except OSError as error:
        with suppress(OSError):
            store.remove(probe)
        if error.errno in _FULL:
            raise InfrastructureError(
                f"checkpoints cannot be written into {folder!r} now: {error}. Free some space there"
            ) from error
        raise ConfigError(
            f"checkpoints cannot be written into {folder!r}: {error}. Wanted a folder that every "
            "node of the job can write into"
        ) from error
