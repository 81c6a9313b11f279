"""Keys, scopes and namespaces: what is legal, and where a deployment's keys lie in a shared store.

A key is words joined by ``/``; a scope is a key, or a folder, which ends in ``/``. In the store all
keys of a deployment lie under ``/namespace/-/``. The word ``-`` is legal in neither namespaces nor
keys, so no namespace can ever see into another one, not even ``a`` into ``a/b``.

This module may import nothing but the standard library and ``llutil.errors``; it does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
    """``key``, if it is a legal one.

    :raises ConfigError: it is not; the text says why.
    """
    if problem := _problem("ledger key", key, key.split("/")):
        raise ConfigError(problem)
    return key


def check_folder(folder: str) -> str:
    """``folder``, if it is a legal one. :raises ConfigError: it is not."""
    if not folder.endswith("/"):
        raise ConfigError(f"ledger folder {folder!r} does not end in '/'")
    check_key(folder[:-1])
    return folder


def check_scope(scope: str) -> str:
    """``scope``, if it is a legal key or folder. :raises ConfigError: it is neither."""
    return check_folder(scope) if scope.endswith("/") else check_key(scope)


def holds(scope: str, key: str) -> bool:
    """Whether ``key`` is in ``scope``: it is that key, or lies directly in that folder."""
    if not scope.endswith("/"):
        return key == scope
    return key.startswith(scope) and "/" not in key[len(scope) :]


def by_arrival(records: Iterable[Record]) -> tuple[Record, ...]:
    """The records in order of arrival."""
    return tuple(sorted(records, key=lambda record: (record.created, record.key)))


@dataclass(frozen=True, slots=True)
class Namespace:
    """The part of a store that belongs to one deployment. ``path`` is what its owner wrote.

    :raises ConfigError: ``path`` is not words joined by ``/``.
    """

    path: str

    def __post_init__(self) -> None:
        if problem := _problem("namespace", self.path, self.path.strip("/").split("/")):
            raise ConfigError(problem)

    @property
    def prefix(self) -> str:
        """What every key of this deployment begins with in the store."""
        return f"/{self.path.strip('/')}/-/"

    def outside(self, scope: str) -> str:
        """The path in the store of a key or folder of ours."""
        return self.prefix + scope

    def inside(self, path: str) -> str:
        """The key of ours that lies at that path in the store."""
        assert path.startswith(self.prefix), path
        return path[len(self.prefix) :]
