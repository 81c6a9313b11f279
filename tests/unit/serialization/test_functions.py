"""What is sent by name and what by value, and how a failure names its culprit."""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.entrypoint import FunctionName, PickledCall
from llutil.errors import EntrypointError
from llutil.serialization import by_value_pickle, functions
from tests.support.dag_files import imported_as_dag_file

MANGLED = "unusual_prefix_0b0c1d5c2f8a7e6d4b3a29181706f5e4d3c2b1a0_hopeless"

HOPELESS = """
import functools, sys, threading

lock = threading.Lock()
stream = sys.stdin
limits = {"epochs": 3, "guards": [1, lock]}


class Config:
    epochs = 3


class Slotted:
    __slots__ = ("guard",)


class Trainer:
    guard = lock
    def run(self):
        return self.guard


class Refuses:
    def __reduce__(self):
        raise RuntimeError("not on my watch")


config, slotted, refuses = Config(), Slotted(), Refuses()
config.lock = slotted.guard = lock


def uses_lock():
    with lock:
        pass


def make_loader():
    return uses_lock


def train():
    return make_loader()


def inside():
    def nested():
        return [lock for _ in range(3)]
    return nested


def uses_limits():
    return limits


def uses_config():
    return config.epochs


def uses_slotted():
    return slotted


def uses_trainer():
    return Trainer()


def uses_refuses():
    return refuses


def with_default(x, guard=lock, *, other=1):
    return x


def with_keyword_default(*, guard=lock):
    return guard


def make_closure():
    guard = lock
    return lambda: guard


def closes_over_a_function():
    return (lambda inner: lambda: inner())(uses_lock)


def wrap(function):
    @functools.wraps(function)
    def wrapper():
        return None
    return wrapper


wrapped = wrap(uses_lock)


def forward():
    return backward()


def backward():
    return forward() or lock


def fine(*arguments, **named):
    return arguments
"""


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("dags") / "hopeless.py"
    path.write_text(HOPELESS)
    with imported_as_dag_file(MANGLED, path) as module:
        yield module


@pytest.fixture(autouse=True)
def registry_is_left_as_it_was() -> Iterator[None]:
    before = cloudpickle.list_registry_pickle_by_value()
    yield
    assert cloudpickle.list_registry_pickle_by_value() == before


LOCK = "(a _thread.lock object)"
CULPRITS: list[tuple[Callable[[Any], Callable[..., Any]], str]] = [
    (lambda m: m.uses_lock, f"uses_lock -> global 'lock' {LOCK}"),
    (lambda m: m.train, f"train -> make_loader -> uses_lock -> global 'lock' {LOCK}"),
    (lambda m: m.inside, f"inside -> global 'lock' {LOCK}"),
    (
        lambda m: m.uses_limits,
        "uses_limits -> global 'limits' (a dict object) -> item 'guards' (a list object) "
        f"-> item 1 {LOCK}",
    ),
    (
        lambda m: m.uses_config,
        f"uses_config -> global 'config' (a Config object) -> attribute 'lock' {LOCK}",
    ),
    (
        lambda m: m.uses_slotted,
        f"uses_slotted -> global 'slotted' (a Slotted object) -> attribute 'guard' {LOCK}",
    ),
    (lambda m: m.uses_trainer, f"uses_trainer -> class Trainer -> attribute 'guard' {LOCK}"),
    (
        lambda m: m.Trainer().run,
        "Trainer.run -> object of method 'run' (a Trainer object) -> class Trainer "
        f"-> attribute 'guard' {LOCK}",
    ),
    (lambda m: m.uses_refuses, "uses_refuses -> global 'refuses' (a Refuses object)"),
    (lambda m: m.with_default, f"with_default -> default of 'guard' {LOCK}"),
    (lambda m: m.with_keyword_default, f"with_keyword_default -> default of 'guard' {LOCK}"),
    (lambda m: m.make_closure(), f"<lambda> -> closure variable 'guard' {LOCK}"),
    (
        lambda m: m.closes_over_a_function(),
        f"<lambda> -> inner -> global 'lock' {LOCK}",
    ),
    (
        lambda m: m.wrapped,
        f"uses_lock -> attribute '__wrapped__' (a function object) -> global 'lock' {LOCK}",
    ),
    (lambda m: m.forward, f"forward -> backward -> global 'lock' {LOCK}"),
    (lambda m: functools.partial(m.fine, 1, m.lock), f"fine -> argument 1 {LOCK}"),
    (lambda m: functools.partial(m.fine, key=m.lock), f"fine -> argument 'key' {LOCK}"),
    (
        lambda m: functools.partial(m.uses_lock),
        f"uses_lock -> function 'uses_lock' (a function object) -> global 'lock' {LOCK}",
    ),
]


@pytest.mark.parametrize(("choose", "path"), CULPRITS, ids=[path for _, path in CULPRITS])
def test_a_function_that_cannot_be_sent_names_what_is_at_fault(
    hopeless: Any, choose: Callable[[Any], Callable[..., Any]], path: str
) -> None:
    with pytest.raises(EntrypointError) as caught:
        functions.pickle_call(choose(hopeless))
    assert f"because {path} cannot be pickled (" in str(caught.value)
    assert "Make it inside the function, or pass" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_argument_that_cannot_be_sent_is_named(hopeless: Any) -> None:
    with pytest.raises(EntrypointError, match=r"fine -> argument 1 \(a _thread.lock object\)"):
        functions.pickle_call(hopeless.fine, (0, hopeless.lock))
    with pytest.raises(
        EntrypointError, match=r"fine -> argument 'rate' \(a list object\) -> item 0 \(a _thread"
    ):
        functions.pickle_call(hopeless.fine, (0,), {"lr": 1, "rate": [hopeless.lock]})
    with pytest.raises(EntrypointError, match=r"arguments -> argument 'rate' \(a _thread.lock"):
        functions.pickle_arguments((1,), {"rate": hopeless.lock})
    with pytest.raises(EntrypointError, match=r"arguments -> argument 0 \(a Config object\)"):
        functions.pickle_arguments((hopeless.config,))


def test_the_text_of_the_pickler_is_kept(hopeless: Any) -> None:
    with pytest.raises(EntrypointError, match=r"\(not on my watch\)"):
        functions.pickle_call(hopeless.uses_refuses)


def test_a_value_nested_without_end_is_an_error_and_not_a_crash(hopeless: Any) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EntrypointError, match=r"argument 0 \(a list object\)") as caught:
        functions.pickle_arguments((deep,))
    assert str(caught.value).count(" -> ") < 25


@pytest.mark.parametrize("wrong", [None, "train", {"a": 1}])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(EntrypointError, match="wanted a function"):
        functions.pickle_call(wrong)


def by_value(function: Any) -> bool:
    """Whether the code of ``function`` is in what is sent."""
    return not functions.pickle_call(function).payload.startswith(b"\n")


def test_by_value_goes_what_a_fresh_interpreter_cannot_import(hopeless: Any) -> None:
    import json

    assert by_value(hopeless.fine)
    assert by_value(lambda: 1)
    assert not by_value(json.dumps)
    assert not by_value(len)
    assert not by_value(by_value_pickle.dumps)
    assert not by_value(Path.exists)


def test_a_module_loaded_from_elsewhere_under_an_importable_name_goes_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice_there_is.py").write_text(f"def where():\n    return '{folder}'")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    spec = importlib.util.spec_from_file_location(
        "twice_there_is", tmp_path / "there" / "twice_there_is.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "twice_there_is", module)
    spec.loader.exec_module(module)
    shipped = functions.pickle_call(module.where)
    monkeypatch.delitem(sys.modules, "twice_there_is")
    assert functions.load_call(shipped)() == "there"


def test_a_module_made_of_nothing_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("made_of_nothing")
    exec("BASE = 2\ndef times(x):\n    return x * BASE", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_of_nothing", module)

    def outer(x: int) -> int:
        result: int = module.times(x)
        return result

    shipped = [functions.pickle_call(module.times, (3,)), functions.pickle_call(outer, (4,))]
    monkeypatch.delitem(sys.modules, "made_of_nothing")
    assert [functions.load_call(one)() for one in shipped] == [6, 8]


def test_a_module_that_another_makes_while_it_is_imported_goes_by_name() -> None:
    import pyexpat  # an extension; it makes pyexpat.errors and pyexpat.model, which have no file

    assert sys.modules["pyexpat.errors"] is pyexpat.errors
    assert by_value_pickle._importable("pyexpat.errors")
    assert not by_value_pickle._importable("pyexpat.absent")


def test_a_module_under_a_second_name_that_its_package_gives_it_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``collections.abc`` is since Python 3.13, beside a file of that name."""
    package = tmp_path / "twice_named"
    package.mkdir()
    for file, text in {
        "_own.py": "",
        "abc.py": "",
        "__init__.py": "import sys\nfrom . import _own as abc\n"
        "sys.modules[__name__ + '.abc'] = abc",
    }.items():
        (package / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import twice_named  # type: ignore[import-not-found]

    try:
        assert by_value_pickle._importable("twice_named.abc")
        assert by_value_pickle._importable("collections.abc")
        monkeypatch.delattr(twice_named, "abc")
        assert not by_value_pickle._importable("twice_named.abc"), "a fresh interpreter has not"
    finally:
        for name in [name for name in sys.modules if name.startswith("twice_named")]:
            del sys.modules[name]


def test_a_module_that_the_user_sends_by_value_stays_so(hopeless: Any) -> None:
    cloudpickle.register_pickle_by_value(hopeless)
    try:
        functions.pickle_call(hopeless.fine)
        assert MANGLED in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(hopeless)


def test_threads_that_send_at_once_do_not_disturb_each_other(hopeless: Any) -> None:
    payloads: list[bool] = []
    threads = [
        threading.Thread(target=lambda: payloads.extend(by_value(hopeless.fine) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert payloads == [True] * 200


def test_code_of_another_python_is_refused_by_name_and_version() -> None:
    shipped = functions.pickle_call(lambda: 1)
    version, _, data = shipped.payload.partition(b"\n")
    assert version.decode() == f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(
        EntrypointError, match=r"<lambda> was sent as code of Python 2\.7, but this"
    ):
        functions.load_call(PickledCall(shipped.name, b"2.7\n" + data))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda: 1, "<lambda>"),
        (functools.partial(functools.partial(len), "a"), "len"),
        (Path.mkdir, "Path.mkdir"),
        (threading.Event(), "Event"),
    ],
)
def test_a_shipped_function_is_called_what_its_author_calls_it(function: Any, name: str) -> None:
    assert functions._name_of(function) == name


def takes(x: int, y: int = 1, *, z: int) -> int:
    return x + y + z


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ["missing a required argument: 'x'", "given: 0 positional"]),
        ((1,), {}, ["missing a required", "'z'"]),
        ((1, 2, 3), {"z": 1}, ["too many positional arguments", "3 positional, z="]),
        ((1,), {"z": 1, "w": 2}, ["unexpected keyword argument 'w'", "z=, w="]),
    ],
)
def test_arguments_that_do_not_fit_are_found_before_anything_runs(
    args: tuple[int, ...], kwargs: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(EntrypointError) as caught:
        functions.check_arguments(takes, args, kwargs)
    for word in ["takes(x: ", *words]:
        assert word in str(caught.value)


def test_arguments_that_fit_pass_and_so_does_what_hides_its_signature() -> None:
    functions.check_arguments(takes, (1,), {"z": 2})
    functions.check_arguments(functools.partial(takes, z=1), (1,))
    functions.check_arguments(max, (1, 2, 3))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(args=st.lists(PLAIN), kwargs=st.dictionaries(st.text("abc", min_size=1), PLAIN))
def test_arguments_arrive_as_they_were_sent(args: list[Any], kwargs: dict[str, Any]) -> None:
    def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert functions.load_call(functions.pickle_call(echo, args, kwargs))() == (tuple(args), kwargs)


def test_a_reference_without_payload_is_called_without_arguments() -> None:
    assert functions.load_call(FunctionName("builtins:dict", b""))() == {}


def test_a_named_function_is_checked_where_it_is_first_imported() -> None:
    reference = FunctionName(
        "textwrap:dedent", functions.pickle_arguments(["text", "more", "more"])
    )
    with pytest.raises(EntrypointError, match=r"dedent\(text\) cannot be called .* too many"):
        functions.load_call(reference)
