"""Functions of a DAG file, of ``__main__`` and of modules, called in an interpreter that knows none
of it.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from llutil import entrypoint
from llutil.serialization import functions
from tests.support.dag_files import imported_as_dag_file

pytestmark = pytest.mark.launch

ROOT = Path(__file__).parents[3]
MANGLED = "unusual_prefix_0b0c1d5c2f8a7e6d4b3a29181706f5e4d3c2b1a0_my_dag"

HELPER = """
def double(x):
    return 2 * x
"""

DAG = """
import abc, dataclasses, enum, functools, json, logging, os.path, typing
import collections.abc as shapes
from typing import NamedTuple

import beside_the_dag
from beside_the_dag import double

log = logging.getLogger(__name__)
RATE = 0.5
UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int = 2


@dataclasses.dataclass(slots=True)
class Settings:
    epochs: int
    names: list[str] = dataclasses.field(default_factory=list)


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape, typing.Generic[T]):
    count = 0

    def __init__(self, side):
        self.side = side
        type(self).count += 1

    @functools.cached_property
    def area_once(self):
        return self.area()

    def area(self):
        return self.side**2

    @classmethod
    def unit(cls):
        return cls(1)

    @staticmethod
    def corners():
        return 4


def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return ["traced", function(*args, **kwargs)]
    return wrapper


def plain(x, y=RATE):
    return x + y


def through_globals(x):
    log.debug("a logger travels by name")
    return double(x) + beside_the_dag.double(x) + helper(x) + len(os.path.join("a", "b"))


def helper(x):
    return x * RATE


@traced
def decorated(x):
    return helper(x)


@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def uses_a_cache(n):
    return [fibonacci(n), fibonacci.cache_info().maxsize]


def annotated(user: UserId, values: "shapes.Sequence[T]" = ()) -> T:
    return user


def classes():
    square = Square(3)
    return [square.area_once, Square.unit().area(), Square.corners(), Square.count,
            isinstance(square, Shape), super(Square, square) is not None]


def kinds(settings, point, colour):
    return [settings.epochs, settings.names, list(point), isinstance(point, Point),
            colour is Colour.RED, dataclasses.asdict(Settings(1))["names"]]


def counter():
    global RATE
    RATE += 1
    return [RATE, helper(2)]


def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)


def generator_inside(n):
    return sum(helper(i) for i in range(n) if (lambda j: j % 2)(i))


def make_closure(base):
    def closure(x):
        return helper(x) + base
    return closure


class Job:
    def __init__(self, base):
        self.base = base
    def __call__(self, x):
        return helper(x) + self.base
    def run(self, x):
        return self(x) * 10


def unwritten():
    return where  # noqa: F821 - not defined anywhere
"""


def in_a_fresh_interpreter(
    entrypoints: dict[str, entrypoint.Entrypoint], path: list[str]
) -> dict[str, Any]:
    """``{name: ["value", what the call returned] or ["error", its type and text]}``."""
    program = """
        import json, msgspec, sys, traceback
        from llutil import entrypoint
        from llutil.serialization import functions
        answers = {}
        for name, value in json.load(sys.stdin).items():
            try:
                one = msgspec.convert(value, type=entrypoint.Entrypoint)
                answers[name] = ["value", functions.load_call(one)()]
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                answers[name] = ["error", type(error).__name__, str(error), last.filename]
        print(json.dumps(answers))
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=json.dumps({name: msgspec.to_builtins(one) for name, one in entrypoints.items()}),
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*path, str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answers: dict[str, Any] = json.loads(finished.stdout)
    return answers


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "my_dag.py").write_text(DAG)
    (tmp_path / "beside_the_dag.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    with imported_as_dag_file(MANGLED, tmp_path / "my_dag.py") as module:
        yield module
    for name in (MANGLED, "beside_the_dag"):
        sys.modules.pop(name, None)


def test_whatever_a_dag_file_defines_runs_where_it_cannot_be_imported(
    dag: ModuleType, tmp_path: Path
) -> None:
    d: Any = dag
    calls: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
        "plain": (d.plain, (1,), 1.5),
        "globals, by name and by value": (d.through_globals, (2,), 4 + 4 + 1.0 + 3),
        "decorated": (d.decorated, (2,), ["traced", 1.0]),
        "cached and recursive": (d.uses_a_cache, (30,), [832040, None]),
        "cached itself": (d.fibonacci, (10,), 55),
        "annotated with types of its file": (d.annotated, (7,), 7),
        "classes": (d.classes, (), [9, 1, 4, 2, True, True]),
        "instances as arguments": (
            d.kinds,
            (d.Settings(3, ["a"]), d.Point(1), d.Colour.RED),
            [3, ["a"], [1, 2], True, True, []],
        ),
        "functions share their globals": (d.counter, (), [1.5, 3.0]),
        "recursive": (d.recursive, (5,), 120),
        "lambda and generator": (d.generator_inside, (4,), 2.0),
        "closure": (d.make_closure(10), (2,), 11.0),
        "lambda": (lambda x: d.helper(x) + 1, (2,), 2.0),
        "partial": (functools.partial(d.plain, y=3), (1,), 4),
        "partial of a partial": (functools.partial(functools.partial(d.plain, 1), 2), (), 3),
        "callable object": (d.Job(10), (2,), 11.0),
        "bound method": (d.Job(10).run, (2,), 110.0),
        "class method": (d.Square.corners, (), 4),
        "installed": (json.dumps, ([1],), "[1]"),
        "builtin": (len, ("abc",), 3),
        "method of a builtin": ("a,b".split, (",",), ["a", "b"]),
    }
    shipped: dict[str, entrypoint.Entrypoint] = {
        name: functions.pickle_call(function, args) for name, (function, args, _) in calls.items()
    }
    answers = in_a_fresh_interpreter(shipped, [str(tmp_path)])
    assert answers == {name: ["value", wanted] for name, (_, _, wanted) in calls.items()}


def test_keyword_arguments_travel_with_functions_and_references(
    dag: ModuleType, tmp_path: Path
) -> None:
    packed = functions.pickle_arguments((), {"x": 21})
    answers = in_a_fresh_interpreter(
        {
            "function": functions.pickle_call(dag.plain, (), {"x": 1, "y": 2}),
            "reference": entrypoint.FunctionName("beside_the_dag:double", packed),
            "reference without arguments": entrypoint.FunctionName("os:getpid", b""),
        },
        [str(tmp_path)],
    )
    assert answers["function"] == ["value", 3]
    assert answers["reference"] == ["value", 42]
    assert answers["reference without arguments"][0] == "value"


def test_what_the_worker_lacks_is_named_and_what_it_does_wrong_comes_through(
    dag: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "breaks.py").write_text("1 / 0\n")
    (tmp_path / "lacks.py").write_text("import not_there_at_all\n")
    there = in_a_fresh_interpreter(
        {
            "module": entrypoint.FunctionName("not_there:main", b""),
            "submodule": entrypoint.FunctionName("beside_the_dag.sub:main", b""),
            "attribute": entrypoint.FunctionName("beside_the_dag:doubel", b""),
            "nested": entrypoint.FunctionName("json:JSONEncoder.encoed", b""),
            "no function": entrypoint.FunctionName("sys:path", b""),
            "breaks": entrypoint.FunctionName("breaks:main", b""),
            "lacks": entrypoint.FunctionName("lacks:main", b""),
            "user code": functions.pickle_call(dag.unwritten),
        },
        [str(tmp_path)],
    )
    for name, words in {
        "module": ["'not_there:main' needs the module 'not_there'", "PYTHONPATH"],
        "submodule": ["needs the module 'beside_the_dag.sub'", "is not a package"],
        "attribute": ["the module 'beside_the_dag' has no 'doubel'; did you mean 'double'?"],
        "nested": ["JSONEncoder has no 'encoed'; did you mean 'encode'?"],
        "no function": ["is a list object; wanted a function"],
    }.items():
        kind, error, text, _ = there[name]
        assert (kind, error) == ("error", "EntrypointError")
        for word in words:
            assert word in text
    assert there["breaks"][1] == "ZeroDivisionError"
    assert there["breaks"][3] == str(tmp_path / "breaks.py")
    assert there["lacks"][1:3] == ["ModuleNotFoundError", "No module named 'not_there_at_all'"]
    assert there["user code"][1] == "NameError"


def test_a_shipped_function_says_which_module_the_worker_lacks(
    dag: ModuleType, tmp_path: Path
) -> None:
    calls: dict[str, entrypoint.Entrypoint] = {
        "by a global": functions.pickle_call(dag.through_globals, (1,)),
        "itself": functions.pickle_call(dag.double, (1,)),
    }
    without = in_a_fresh_interpreter(calls, [])
    for name, whose in {"by a global": "through_globals", "itself": "double"}.items():
        assert without[name][1] == "EntrypointError"
        assert f"{whose} needs the module 'beside_the_dag'" in without[name][2]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "beside_the_dag.py").write_text("")
    other = in_a_fresh_interpreter(calls, [str(tmp_path / "other")])
    assert "double needs 'double' of the module 'beside_the_dag'" in other["itself"][2]


def test_functions_of_a_program_run_by_hand_travel_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import base64, functools
            from llutil.serialization import functions

            OFFSET = 1

            @functools.lru_cache(maxsize=2)
            def helper(x):
                return x + OFFSET

            class Trainer:
                def run(self, x):
                    return helper(x)

            def main(x):
                return Trainer().run(x)

            if __name__ == "__main__":
                print(base64.b64encode(functions.pickle_call(main, (1,)).payload).decode())
            """
        )
    )
    payload = subprocess.run(
        [sys.executable, str(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    shipped = entrypoint.PickledCall("main", base64.b64decode(payload))
    assert in_a_fresh_interpreter({"main": shipped}, []) == {"main": ["value", 2]}


def test_what_every_process_imports_brings_nothing_heavy() -> None:
    """A DAG is parsed without these, and a script that reports progress need not have them."""
    program = """
        import sys
        from llutil import entrypoint, errors, std, worker
        from llutil.events import events
        from llutil.serialization import functions, json_values
        from llutil.task_link import messages
        worker.progress(1)
        worker.events().pause.is_set()
        json_values.encode({"a": [1.5, {2}]}, rank=0, limit=99)
        functions.check_arguments(len, ("a",))
        functions.load_call(entrypoint.FunctionName("builtins:dict", b""))()
        heavy = {"airflow", "cloudpickle", "etcd3", "grpc", "kazoo", "numpy", "torch"}
        sys.exit(", ".join(heavy & set(sys.modules)) or 0)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )
