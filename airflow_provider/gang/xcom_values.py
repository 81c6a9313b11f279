"""Reads what the nodes of a gang tell each other by XCom: values of fixed fields, with a version.

A sibling may run another version of this package, and anybody may push anything under the same key.
So whoever reads takes nothing for granted. This module may import nothing but the standard library
and msgspec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

__all__ = ["VERSION", "pull_all", "value_of"]

VERSION = 1
"""The version of these values, under their key ``version``."""

T = TypeVar("T")


def value_of(kind: type[T], value: Any) -> T | None:
    """The dataclass ``kind`` in an XCom value; None if that is something else, or of another
    version.
    """
    if not isinstance(value, Mapping) or value.get("version") != VERSION:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def pull_all(ti: Any, task_id: str, key: str) -> list[Any]:
    """What the mapped instances of a task have pushed under ``key``, in order; only what is there.

    It does not ask for each instance by its map index: Airflow would log an error for each instance
    that has pushed nothing. Where only one value was pushed, Airflow returns it without a list
    (3.3).
    """
    found = ti.xcom_pull(task_ids=task_id, key=key)
    return found if isinstance(found, list) else [found]
