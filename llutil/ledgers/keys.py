"""Keys, scopes and namespaces: which are legal, and where a deployment's keys are in a shared
store.

A key is words joined by ``/``. A scope is a key or a folder; a folder ends in ``/``. In the store,
all keys of a deployment begin with ``/namespace/-/``. The word ``-`` is legal neither in namespaces
nor in keys. So no namespace contains keys of another one, not even ``a`` those of ``a/b``.

This module may import the standard library, ``llutil.errors`` and ``llutil.ledgers.protocol``, and
nothing else. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from llutil.errors import ConfigError
from llutil.ledgers.protocol import Record

__all__ = ["Namespace", "by_arrival", "check_folder", "check_key", "check_scope", "holds"]

_RESERVED = ("", ".", "..", "-")


def _problem(what: str, text: str, words: Iterable[str]) -> str | None:
    for word in words:
        if word in _RESERVED or not word.isprintable():
            return (
                f"{what} {text!r} has the word {word!r}; words are printable, not empty, "
                "and none of '.', '..' and '-'"
            )
    return None


def check_key(key: str) -> str:
    """Return ``key`` if it is a legal key.

    :raises ConfigError: it is not; the text says why.
    """
    if problem := _problem("ledger key", key, key.split("/")):
        raise ConfigError(problem)
    return key


def check_folder(folder: str) -> str:
    """Return ``folder`` if it is a legal folder. :raises ConfigError: it is not."""
    if not folder.endswith("/"):
        raise ConfigError(f"ledger folder {folder!r} does not end in '/'")
    check_key(folder[:-1])
    return folder


def check_scope(scope: str) -> str:
    """Return ``scope`` if it is a legal key or folder. :raises ConfigError: it is neither."""
    return check_folder(scope) if scope.endswith("/") else check_key(scope)


def holds(scope: str, key: str) -> bool:
    """Whether ``key`` is in ``scope``: it is that key, or is directly in that folder."""
    if not scope.endswith("/"):
        return key == scope
    return key.startswith(scope) and "/" not in key[len(scope) :]


def by_arrival(records: Iterable[Record]) -> tuple[Record, ...]:
    """The records in order of arrival."""
    return tuple(sorted(records, key=attrgetter("created", "key")))


@dataclass(frozen=True, slots=True)
class Namespace:
    """The part of a store that belongs to one deployment. ``path`` is the name in the
    configuration.

    :raises ConfigError: ``path`` is not words joined by ``/``.
    """

    path: str

    def __post_init__(self) -> None:
        if problem := _problem("namespace", self.path, self.path.strip("/").split("/")):
            raise ConfigError(problem)

    @property
    def prefix(self) -> str:
        """The beginning of every key of this deployment in the store."""
        return f"/{self.path.strip('/')}/-/"

    def outside(self, scope: str) -> str:
        """The path in the store of a key or folder of this namespace."""
        return self.prefix + scope

    def inside(self, path: str) -> str:
        """The key of this namespace at that path in the store. The inverse of ``outside``."""
        assert path.startswith(self.prefix), path
        return path[len(self.prefix) :]
