"""The reference that stands in XCom for a value in an object store, and how to read that value.

``StoredResult`` is the reference: plain JSON with a version. The value is stored as JSON or as an
archive of arrays; neither is a pickle. Airflow is imported inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider.results.class_objects import for_xcom, from_json
from llutil.serialization import npz_archive

__all__ = [
    "StoredResult",
    "StoredResultError",
    "load_result",
    "load_results",
    "reference_from_json",
    "reference_to_json",
    "to_xcom",
]

_MARKER_KEY = "elastic_launch_result"
_VERSION = 1
_IS_VALUE = "value"
_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "json": lambda content: from_json(json.loads(content)),
    "npz": lambda content: from_json(npz_archive.decode(content)),
}


class StoredResultError(LookupError):
    """A stored value cannot be read; the text has its URI.

    What to do: see that the store still has the file, and clear the task that made it if not.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """Where a value is stored: ``size`` bytes of ``format`` at ``uri``.

    ``preview`` holds the first characters of its JSON. The URI is one that ``ObjectStoragePath``
    takes; it may name an Airflow connection (``s3://conn_id@bucket/key``).
    """

    uri: str
    size: int
    preview: str
    format: str = "json"


def to_xcom(result: Any, not_allowed: Callable[[str], object] = lambda _: None) -> Any:
    """What stands in XCom for a rank's value, decoded from JSON, or for the reference to it.
    ``not_allowed`` is as in ``class_objects.for_xcom``.
    """
    return reference_to_json(
        result if isinstance(result, StoredResult) else for_xcom(result, not_allowed)
    )


def reference_to_json(result: Any) -> Any:
    """A reference as JSON, or the value ``result`` itself.

    A returned dict with the reference's own key is put into another dict, so that nobody takes it
    for a reference and opens what it names.
    """
    if isinstance(result, StoredResult):
        return {_MARKER_KEY: _VERSION, **asdict(result)}
    if isinstance(result, Mapping) and _MARKER_KEY in result:
        return {_MARKER_KEY: _IS_VALUE, "value": result}
    return result


def reference_from_json(value: Any) -> Any:
    """What ``reference_to_json`` was given: a reference, or a value.

    :raises StoredResultError: it is a reference of another version.
    """
    if not isinstance(value, Mapping) or _MARKER_KEY not in value:
        return value
    if value[_MARKER_KEY] == _IS_VALUE and "value" in value:
        return value["value"]
    names = StoredResult.__dataclass_fields__
    fields = {name: value[name] for name in names if name in value}
    if value[_MARKER_KEY] != _VERSION or len(fields) != len(names):
        raise StoredResultError(
            f"the result at {value.get('uri')!r} was stored in version {value[_MARKER_KEY]!r}; "
            f"this airflow-provider-elastic-launch reads version {_VERSION}"
        )
    return StoredResult(**fields)


def load_result(value: Any) -> Any:
    """What a rank returned. ``value`` is what XCom holds of it: a reference, or the value itself.

    :raises StoredResultError: the stored value is gone, or cannot be read.
    """
    stored = reference_from_json(value)
    if not isinstance(stored, StoredResult):
        return stored
    if stored.format not in _DECODERS:
        wanted = " or ".join(map(repr, _DECODERS))
        raise StoredResultError(f"the result at {stored.uri} is {stored.format!r}; wanted {wanted}")
    content = _read(stored.uri)
    if len(content) != stored.size:
        raise StoredResultError(
            f"the result at {stored.uri} has {len(content):,} bytes, and had {stored.size:,} when "
            "it was stored: something else has been written there"
        )
    try:
        return _DECODERS[stored.format](content)
    except ModuleNotFoundError as error:
        raise StoredResultError(
            f"the result at {stored.uri} needs {(error.name or str(error)).partition('.')[0]}, "
            "which is not installed where it is read"
        ) from error
    except Exception as error:
        raise StoredResultError(
            f"the result at {stored.uri} cannot be read as {stored.format}: "
            f"{type(error).__name__}: {error}"
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
            "does not see the folder that it is in; clear the task that returned it"
        ) from error
    except Exception as error:
        raise StoredResultError(
            f"the result at {uri} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return content
