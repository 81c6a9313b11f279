"""What stands in XCom for a value that lies in an object store, and the way back to the value.

``StoredResult`` is the reference: plain JSON with a version. What it leads to is JSON, or an
archive of arrays; neither is a pickle. Airflow is imported inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llutil.serialization import npz_archive

__all__ = ["StoredResult", "StoredResultError", "load_result", "load_results"]

_MARK = "elastic_launch_result"
_VERSION = 1
_READ: Mapping[str, Callable[[bytes], Any]] = {"json": json.loads, "npz": npz_archive.decode}


class StoredResultError(LookupError):
    """A value cannot be had from where it was stored; the text has the URI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """Where a value is: ``size`` bytes of ``format`` at ``uri``, with its first characters as a
    ``preview``.

    The URI is one that ``ObjectStoragePath`` takes; it may name an Airflow connection
    (``s3://conn_id@bucket/key``).
    """

    uri: str
    size: int
    preview: str
    format: str = "json"

    def to_json(self) -> dict[str, Any]:
        """As it lies in XCom."""
        return {_MARK: _VERSION, **asdict(self)}

    @classmethod
    def of(cls, value: Any) -> StoredResult | None:
        """The reference that an XCom value is; None if it is a value itself.

        :raises StoredResultError: it is one of a later version.
        """
        if not isinstance(value, Mapping) or _MARK not in value:
            return None
        fields = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        if value[_MARK] != _VERSION or len(fields) != len(cls.__dataclass_fields__):
            raise StoredResultError(
                f"the result at {value.get('uri')!r} was stored in version {value[_MARK]!r}; this "
                f"airflow-provider-elastic-launch reads version {_VERSION}"
            )
        return cls(**fields)


def load_result(value: Any) -> Any:
    """What a rank returned, from what XCom holds of it: fetched if that is a reference, else
    ``value`` itself.

    :raises StoredResultError: the stored value is gone, or cannot be read.
    """
    stored = StoredResult.of(value)
    if stored is None:
        return value
    if stored.format not in _READ:
        wanted = " or ".join(map(repr, _READ))
        raise StoredResultError(f"the result at {stored.uri} is {stored.format!r}; wanted {wanted}")
    content = _read(stored.uri)
    if len(content) != stored.size:
        raise StoredResultError(
            f"the result at {stored.uri} has {len(content):,} bytes, and had {stored.size:,} when "
            "it was stored: "
            "something else has been written there"
        )
    try:
        return _READ[stored.format](content)
    except ModuleNotFoundError as error:
        raise StoredResultError(
            f"the result at {stored.uri} has arrays, and numpy is not installed where it is read"
        ) from error
    except ValueError as error:
        raise StoredResultError(
            f"the result at {stored.uri} is no {stored.format}: {error}"
        ) from error


def load_results(returned: Mapping[str, Any]) -> dict[int, Any]:
    """What each rank returned, by rank, from a task's ``return_value``; see ``load_result``."""
    return {int(rank): load_result(value) for rank, value in returned.items()}


def _read(uri: str) -> bytes:
    from airflow.sdk import ObjectStoragePath

    try:
        with ObjectStoragePath(uri).open("rb") as file:
            content: bytes = file.read()
    except FileNotFoundError as error:
        raise StoredResultError(
            f"the result at {uri} is gone: it was removed after it had been stored, or this host "
            "does not see the "
            "folder that it is in; clear the task that returned it"
        ) from error
    except Exception as error:
        raise StoredResultError(
            f"the result at {uri} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return content
