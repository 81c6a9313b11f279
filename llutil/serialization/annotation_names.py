"""The names that the annotations of a function or class need, and that its code does not mention.

With ``from __future__ import annotations`` an annotation is text. ``typing.get_type_hints``, and
with it parsers of command lines and of configurations, evaluate that text in the module. This
module may import only the standard library.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["names_in_annotations"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def names_in_annotations(
    value: Any, content: Mapping[str, Any], importable: Callable[[str], bool]
) -> dict[str, Any]:
    """What the annotations of ``value`` name of its module, which has this ``content``.

    Only what is pickled by its name: types, forms of ``typing`` and modules that ``importable``
    says can be imported. So no annotation keeps a function from being sent.
    """
    found: dict[str, Any] = {}
    for text in getattr(value, "__annotations__", {}).values():
        for name in _NAME.findall(text) if isinstance(text, str) else ():
            if name in content and _is_pickled_by_name(content[name], importable):
                found[name] = content[name]
    return found


def _is_pickled_by_name(value: Any, importable: Callable[[str], bool]) -> bool:
    match value:
        case types.ModuleType():
            return importable(value.__name__)
        case type():
            return value.__module__ != "__main__" and importable(value.__module__)
        case _:
            return type(value).__module__ == "typing" and not getattr(value, "__args__", ())
