"""Gives the processes that a rank spawns the modules that exist only in the rank.

A function that is sent to ranks brings its module along (``llutil.serialization.made_modules``).
A process that the rank spawns by ``multiprocessing``, such as a worker of a ``DataLoader``, is a
fresh interpreter again: it gets objects of these modules in a pickle that names the modules only.
``multiprocessing`` runs the parent's ``__main__`` in such a child, by its name. So ``offer`` gives
the rank's ``__main__`` the name of ``spawned_main``. That reads the rank's work order again, from
the same memory file, once an object of such a module is looked up.

This module may import the standard library, ``work_order`` and ``llutil.serialization``.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.machinery import ModuleSpec
from typing import Any

from llutil.agent.worker_side.work_order import read_order
from llutil.entrypoint import FunctionName, PickledCall

__all__ = ["announce_modules", "attribute_of_main", "offer"]

_VARIABLE = "LLUTIL_WORK_ORDER"
"""Where a rank's own children find the modules that were made for it."""
_MAIN = "llutil.agent.worker_side.spawned_main"


def offer(order_fd: int, modules: tuple[str, ...]) -> None:
    """Let children of this process find these ``modules``, which came with the order in the memory
    file ``order_fd``. The file stays open as long as this process lives.
    """
    where = {"order": f"/proc/{os.getpid()}/fd/{order_fd}", "modules": modules}
    os.environ[_VARIABLE] = json.dumps(where)
    sys.modules["__main__"].__spec__ = ModuleSpec(_MAIN, None)


def announce_modules() -> None:
    """Put a module of each name that the rank has into this child's table of modules."""
    for name in json.loads(os.environ.get(_VARIABLE, "{}")).get("modules", ()):
        if name != "__main__" and name not in sys.modules:
            module: Any = types.ModuleType(name)
            module.__getattr__ = partial(_attribute, name)
            sys.modules[name] = module


def attribute_of_main(attribute: str) -> Any:
    """What the rank's ``__main__`` has under that name."""
    return _attribute("__main__", attribute)


def _attribute(module: str, attribute: str) -> Any:
    if not attribute.startswith("__") and _VARIABLE in os.environ:
        load_next, content = _loader(), vars(sys.modules[module])
        while attribute not in content:
            if not load_next():
                break
        if attribute in content:
            return content[attribute]
    raise AttributeError(f"module {module!r} has no attribute {attribute!r}")


@cache
def _loader() -> Callable[[], bool]:
    """What unpickles the next piece of the rank's order, and says whether there was one."""
    from llutil.serialization import functions, made_modules

    where = json.loads(os.environ[_VARIABLE])
    made_modules.begin({name: sys.modules[name] for name in where["modules"]})
    entrypoint = read_order(where["order"]).entrypoint
    assert isinstance(entrypoint, PickledCall | FunctionName)
    pieces: Iterator[Any] = functions.pieces(entrypoint)
    return lambda: next(pieces, _END) is not _END


_END = object()
