"""A store of checkpoints at a URI that fsspec knows: an object store, mostly.

A file that is put appears whole: object stores promise that. They have no folders and no rename,
so a folder that is removed loses its marker first. Listings are never taken from fsspec's cache.
Whatever a store's client raises becomes ``OSError``. This module may import the standard library,
``llutil.errors``, ``llutil.checkpoints.marker`` and fsspec.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import fsspec

from llutil.checkpoints.marker import MARKER
from llutil.errors import ConfigError

__all__ = ["RemoteStore"]

_PATTERN = re.compile(r"[*?[]")
"""What makes a pattern of a name, for fsspec."""


class RemoteStore:
    """See ``llutil.checkpoints.store.Store``."""

    poll = (0.05, 2.0)

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        try:
            self._client, root = fsspec.core.url_to_fs(self._uri)
        except Exception as error:  # each file system has errors of its own
            raise ConfigError(
                f"{uri!r} cannot be used for checkpoints: {error}. Wanted a path, or a URI of a "
                "scheme that fsspec knows here"
            ) from error
        self._root = str(root).rstrip("/")

    def __repr__(self) -> str:
        return self._uri

    def path(self, name: str) -> str:
        """The URI."""
        return f"{self._uri}/{name}"

    def make(self, name: str) -> None:
        """Make the folder, and those above it."""
        with _client_errors(self.path(name)):
            self._client.makedirs(self._at(name), exist_ok=True)

    def put(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write an object."""
        del durable  # an object store has written it when it answers
        with _client_errors(self.path(name)):
            self._client.pipe_file(self._at(name), content)

    def get(self, name: str) -> bytes:
        """The content of a file."""
        with _client_errors(self.path(name)):
            return bytes(self._client.cat_file(self._at(name)))

    def names(self, folder: str) -> list[str]:
        """What lies in the folder."""
        with _client_errors(self.path(folder)):
            self._client.invalidate_cache()
            try:
                found = self._client.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted({str(name).rstrip("/").rpartition("/")[2] for name in found} - {""})

    def files(self, folder: str) -> dict[str, int]:
        """The files below the folder, with their sizes."""
        root = self._at(folder)
        with _client_errors(self.path(folder)):
            self._client.invalidate_cache()
            return {
                name[len(root) :].lstrip("/"): size
                for name, size in self._entries(root)
                if size is not None
            }

    def sync(self, folder: str) -> None:
        """Nothing to do: what was closed is written."""
        del folder

    def remove(self, folder: str) -> None:
        """Remove what is below the folder, its marker first."""
        root = self._at(folder)
        with _client_errors(self.path(folder)):
            self._client.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                self._client.rm_file(f"{root}/{MARKER}")
            with contextlib.suppress(FileNotFoundError):
                if _PATTERN.search(root):
                    self._remove_one_by_one(root)
                else:
                    self._client.rm(root, recursive=True)

    def _remove_one_by_one(self, root: str) -> None:
        """Remove what is below ``root``, for which ``rm`` would take whatever it matches."""
        for name, size in [*self._entries(root), (root, None)]:
            if size is None:
                with contextlib.suppress(OSError, NotImplementedError):  # a store without folders
                    self._client.rmdir(name)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._client.rm_file(name)

    def _entries(self, folder: str) -> Iterator[tuple[str, int | None]]:
        """What is below the folder: each file with its size, and each folder after what is in it.
        The clients' own ``find`` leaves out what they cannot list (fsspec 2026.9).
        """
        try:
            found = self._client.ls(folder, detail=True)
        except FileNotFoundError:
            return
        for one in found:
            name = str(one["name"]).rstrip("/")
            if name == folder.rstrip("/"):
                continue  # what a store has for an empty folder
            if one["type"] == "directory":
                yield from self._entries(name)
                yield name, None
            else:
                yield name, int(one["size"])

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


@contextlib.contextmanager
def _client_errors(where: str) -> Iterator[None]:
    """Make ``OSError`` of whatever a file system's client raises."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{where}: {type(error).__name__}: {error}") from error
