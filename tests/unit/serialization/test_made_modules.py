"""What came by value is in a module of its old name, where the worker has none of that name."""

from __future__ import annotations

import pickle
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from llutil.serialization import functions, made_modules

NAME = "unusual_prefix_0b0c1d5c2f8a7e6d4b3a29181706f5e4d3c2b1a0_made"

SOURCE = """
from __future__ import annotations
import collections.abc as shapes
import dataclasses, enum
import threading
from typing import Optional, TypeVar

lock = threading.Lock()

@dataclasses.dataclass
class Conf:
    lr: Optional[float] = 0.5
    sizes: shapes.Sequence[lock] | None = None

    class Nested:
        pass

class Kind(enum.Enum):
    A = 1

class Unused:
    pass

calls = 0

def helper(x):
    return Conf(x)

def train():
    global calls
    calls += 1
    return helper(calls), Kind.A, Conf.Nested

def wrapped():
    return 0

plain, wrapped = wrapped, lambda: plain()

def make_local():
    class Local:
        pass
    return Local
"""
CODE = compile(SOURCE, "made.py", "exec", dont_inherit=True)


@pytest.fixture
def source() -> Iterator[Any]:
    """The module in the process that sends; a test takes it out of the table before it loads."""
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    exec(CODE, vars(module))
    before = cloudpickle.list_registry_pickle_by_value()
    yield module
    sys.modules.pop(NAME, None)
    for name in cloudpickle.list_registry_pickle_by_value() - before:
        cloudpickle.unregister_pickle_by_value(types.ModuleType(name))


def loaded(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], *args: Any, begin: bool = True
) -> Any:
    """What a worker calls. Only a process that did ``begin`` makes modules."""
    monkeypatch.setattr(made_modules, "_made", None)
    sent = functions.pickle_call(function, args)
    del sys.modules[NAME]
    # Classes are not to be found by cloudpickle's table of those that this process has sent.
    monkeypatch.setattr(cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
    if begin:
        made_modules.begin()
    return functions.load_call(sent)


def by_name(value: Any) -> bool:
    """Whether ``value`` can be pickled by name, as ``torch.save`` does, and is found again."""
    found = pickle.loads(pickle.dumps(value))
    return found is value if isinstance(value, type) else type(found) is type(value)


def test_objects_of_what_came_by_value_can_be_pickled_by_name(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    conf, kind, nested = loaded(monkeypatch, source.train)()
    assert type(conf).__module__ == NAME
    assert sys.modules[NAME].train.__qualname__ == "train"
    assert made_modules.made() == (NAME,)
    assert by_name(conf)
    assert by_name(kind)
    assert by_name(nested)
    assert nested.__qualname__ == "Conf.Nested"
    assert by_name(sys.modules[NAME].helper)
    assert not hasattr(sys.modules[NAME], "Unused")


def test_the_globals_of_functions_are_those_of_the_module(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    train = loaded(monkeypatch, source.train)
    train()
    train()
    assert sys.modules[NAME].calls == 2


def test_annotations_can_be_evaluated_as_far_as_they_name_what_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    """As parsers of command lines do. An annotation keeps no function from being sent."""
    conf, _, _ = loaded(monkeypatch, source.train)()
    module = sys.modules[NAME]
    assert not hasattr(module, "lock")
    module.lock = int  # type: ignore[attr-defined]
    assert typing.get_type_hints(type(conf))["lr"] == float | None


def test_a_class_that_only_an_argument_has_is_there_too(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    arguments = loaded(monkeypatch, vars, source.Unused()).args
    assert by_name(arguments[0])


def test_a_nested_class_is_found_where_its_outer_class_did_not_come_along(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    (nested,) = loaded(monkeypatch, vars, source.Conf.Nested).args
    assert by_name(nested)


def test_a_name_means_what_it_meant_in_the_module(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    """A function that is hidden behind a decorated one of its name does not take its place."""
    call = loaded(monkeypatch, source.wrapped)
    assert call() == 0
    assert sys.modules[NAME].plain.__qualname__ == "wrapped"
    assert not hasattr(sys.modules[NAME], "wrapped")


def test_a_local_class_is_in_no_module(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    local = loaded(monkeypatch, source.make_local())
    assert local().__class__.__qualname__ == "Local"
    assert not hasattr(sys.modules.get(NAME), "Local")


def test_cloudpickle_still_sends_it_by_value(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    """So that a worker's own pool of fresh interpreters gets it, as it did before the module was
    there.
    """
    conf, _, _ = loaded(monkeypatch, source.train)()
    sent = cloudpickle.dumps(conf)
    del sys.modules[NAME]
    assert cloudpickle.loads(sent).lr == 1


def test_main_is_a_new_module(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    main = types.ModuleType("__main__")
    main.__file__ = "/home/me/train.py"
    exec(CODE, vars(main))
    worker_main = sys.modules["__main__"]
    sys.modules["__main__"] = main
    sent = functions.pickle_call(main.train)
    sys.modules["__main__"] = worker_main
    monkeypatch.setattr(made_modules, "_made", None)
    monkeypatch.setattr(cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
    made_modules.begin()
    conf, _, _ = functions.load_call(sent)()
    assert by_name(conf)
    assert sys.modules["__main__"] is not worker_main
    assert sys.modules["__main__"].__file__ == "/home/me/train.py"
    assert not hasattr(worker_main, "Conf")


def test_a_module_that_the_worker_can_import_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, source: Any, tmp_path: Any
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(made_modules, "_made", None)
    sent = functions.pickle_call(source.train)
    del sys.modules[NAME]
    (tmp_path / f"{NAME}.py").write_text("mine = True")
    made_modules.begin()
    functions.load_call(sent)()
    assert made_modules.made() == ()
    assert NAME not in sys.modules


def test_a_process_that_is_no_worker_makes_none(
    monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    conf, _, _ = loaded(monkeypatch, source.train, begin=False)()
    assert conf.lr == 1
    assert NAME not in sys.modules
