"""What a rank returned, as JSON: each kind of value, and each kind that is refused, with its
place.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import types
import typing
import uuid
import zoneinfo
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import attrs
import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.errors import ResultError
from llutil.serialization.class_values import node
from llutil.serialization.json_values import encode

PLENTY = 10**9
GREATEST = 2**63 - 1


class Colour(enum.Enum):
    RED = "red"
    NESTED = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    LOSS = "loss"


class Point(NamedTuple):
    x: Any
    y: Any


class Moment(dt.datetime):
    """Has a text of its own, as pandas' Timestamp and NaT have."""

    text: str

    def isoformat(self, *_: Any) -> str:
        return self.text


class Span(dt.timedelta):
    """Has nanoseconds, as pandas' Timedelta has."""

    def __ne__(self, other: object) -> bool:
        return True


def moment(text: str) -> Moment:
    made = Moment(1, 1, 1)
    made.text = text
    return made


@dataclasses.dataclass(slots=True)
class Report:
    loss: Any
    where: Any = None


class Count(int):
    def __repr__(self) -> str:
        return "many"

    __str__ = __repr__


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "other"


class Half(float):
    def __repr__(self) -> str:
        return "half"


class Model(pydantic.BaseModel):
    at: Any
    loss: float = 0.5


T = TypeVar("T")


class Generic(pydantic.BaseModel, typing.Generic[T]):
    item: T


@attrs.define
class Attrs:
    a: Any
    b: Any
    made: Any = attrs.field(init=False, default=None)


class Serial:
    __version__ = 3

    def serialize(self) -> Any:
        return {"a": (1,)}

    @staticmethod
    def deserialize(data: Any, version: int) -> Serial:
        raise NotImplementedError


def local(decorate: Any) -> Any:
    """A class with fields that nobody can import."""

    @decorate
    class Local:
        a: Any

    return Local


DataFrame = type("DataFrame", (), {"__module__": "pandas"})


def of_tuple(*items: Any) -> Any:
    return node("builtins.tuple", 1, list(items))


def own(name: str, **fields: Any) -> Any:
    """An object of a class of this file."""
    return node(f"{__name__}.{name}", 0, fields)


KINDS: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (0, 0),
    (GREATEST, GREATEST),
    (-GREATEST, -GREATEST),
    (1.5, 1.5),
    (-0.0, -0.0),
    (math.nan, "NaN"),
    (math.inf, "Infinity"),
    (-math.inf, "-Infinity"),
    ("", ""),
    ("grüße \u2028 🎉", "grüße \u2028 🎉"),
    ([], []),
    ((1, (2,)), of_tuple(1, of_tuple(2))),
    ({}, {}),
    ({False: 0, None: 1, -3: 2}, {"False": 0, "None": 1, "-3": 2}),
    ({np.int64(7): 1, Level.HIGH: 2, Name.LOSS: 3, Colour.RED: 4}, {"7": 1, "3": 2, "loss": 3, "red": 4}),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (types.MappingProxyType({"a": (1,)}), {"a": of_tuple(1)}),
    ({3, 1, 2}, node("builtins.set", 1, [1, 2, 3])),
    (frozenset({"b", "a"}), node("builtins.frozenset", 1, ["a", "b"])),
    ({1, "a", None}, node("builtins.set", 1, [None, 1, "a"])),
    ({"b": 1, "a": 2}.keys(), ["a", "b"]),
    (Colour.RED, "red"),
    (Colour.NESTED, of_tuple(1, 2)),
    ([Level.HIGH, Name.LOSS], [3, "loss"]),
    (Point(1, Point(2, None)), of_tuple(1, of_tuple(2, None))),
    (Report(0.5, Report(1.5)), own("Report", loss=0.5, where=own("Report", loss=1.5, where=None))),
    (Attrs(1, 2), own("Attrs", a=1, b=2, made=None, __not_taken__={"made": True})),
    (Model(at=dt.date(2026, 1, 2)), node(f"{__name__}.Model", 1, {"at": "2026-01-02", "loss": 0.5})),
    (Generic[int](item=1), {"item": 1}),
    (local(dataclasses.dataclass)(1), {"a": 1}),
    (local(attrs.define)(1), {"a": 1}),
    (Serial(), node(f"{__name__}.Serial", 3, {"a": of_tuple(1)})),
    (decimal.Decimal("0.10"), node("decimal.Decimal", 1, "0.10")),
    (uuid.UUID(int=7), node("uuid.UUID", 1, "00000000-0000-0000-0000-000000000007")),
    (dt.timedelta(days=1, microseconds=1), node("datetime.timedelta", 2, 86400.000001)),
    (zoneinfo.ZoneInfo("Europe/Paris"), node("zoneinfo.ZoneInfo", 1, "Europe/Paris")),
    (Path("/a/b"), "/a/b"),
    (PurePosixPath("c"), "c"),
    (dt.date(2026, 1, 2), node("datetime.date", 2, "2026-01-02")),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC),
        node("datetime.datetime", 2, "2026-01-02T03:04:05.000006+00:00")),
    (dt.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        node("datetime.datetime", 2, "2026-01-02T00:00:00+01:00[Europe/Paris]")),
    (moment("2026-01-02T03:04:05.000006"),
        node("datetime.datetime", 2, "2026-01-02T03:04:05.000006")),
    (moment("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
    (moment("NaT"), None),
    (dt.time(3, 4), "03:04:00"),
    (Count(5), 5),
    (Text("own"), "own"),
    (Half(0.5), 0.5),
    (np.float64(0.1), node("numpy.float64", 1, 0.1)),
    (np.float32(0.5), node("numpy.float32", 1, 0.5)),
    (np.float16("nan"), node("numpy.float16", 1, "NaN")),
    (np.longdouble(0.5), 0.5),
    (np.int8(-3), node("numpy.int8", 1, -3)),
    (np.uint64(GREATEST), node("numpy.uint64", 1, GREATEST)),
    (np.bool_(True), node("numpy.bool", 1, True)),
    (np.str_("text"), "text"),
    (np.datetime64("2026-01-02T03:04:05.000000006", "ns"), "2026-01-02T03:04:05.000000006"),
    (np.array(3), 3),
    (np.zeros((0, 3)), []),
    (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    (np.array([1.0, np.nan, -np.inf], dtype=np.float16), [1.0, "NaN", "-Infinity"]),
    (np.array([0.5], dtype=np.longdouble), [0.5]),
    (np.array([True, False]), [True, False]),
    (np.array(["a", "bc"]), ["a", "bc"]),
    (np.array(["2026-01-02"], dtype="datetime64[D]"), ["2026-01-02"]),
    (np.array([{"a": np.int8(1)}, None], dtype=object), [{"a": node("numpy.int8", 1, 1)}, None]),
    (np.array([(1, 0.5)], dtype=[("a", "i4"), ("b", "f8")]), [of_tuple(1, 0.5)]),
    (np.ma.masked_array([1, 2], mask=[False, True]), [1, None]),
    (torch.tensor(2), 2),
    (torch.tensor(0.5, requires_grad=True) * 2, 1.0),
    (torch.tensor([[True], [False]]), [[True], [False]]),
    (torch.tensor([1.5, math.nan]), [1.5, "NaN"]),
    (torch.zeros(0), []),
    (torch.nn.Parameter(torch.ones(2)), [1.0, 1.0]),
    (torch.eye(2).to_sparse(), [[1.0, 0.0], [0.0, 1.0]]),
    (torch.ones(2, 3).shape, of_tuple(2, 3)),
    *((torch.ones(2).to(kind), [1.0, 1.0]) for kind in (torch.bfloat16, torch.float16, torch.float64)),
    *((torch.ones(1).to(kind), [1.0]) for kind in (torch.float8_e4m3fn, torch.float8_e5m2)),
    *((torch.ones(1).to(kind), [1]) for kind in (torch.uint8, torch.int16, torch.int64, torch.uint64)),
]  # fmt: skip

NAMES = [
    f"{number}: {type(value).__name__} {plain!r:.60}" for number, (value, plain) in enumerate(KINDS)
]


@pytest.mark.parametrize(("value", "plain"), KINDS, ids=NAMES)
def test_a_value_becomes(value: Any, plain: Any) -> None:
    found = decoded(value)
    assert found == plain
    assert same_types(found, plain)


def decoded(value: Any) -> Any:
    """What whoever reads the JSON of ``value`` gets."""
    return json.loads(encode(value, rank=0, limit=PLENTY))


def same_types(one: Any, other: Any) -> bool:
    """Exactly the same plain types all the way down: no subclass is left."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(type(key) is str and same_types(one[key], other[key]) for key in one)
    return not isinstance(one, list) or all(map(same_types, one, other))


def cyclic_list() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    return cycle


def cyclic_array() -> Any:
    cycle = np.empty(1, dtype=object)
    cycle[0] = cycle
    return cycle


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (Span(1), "Span, which XCom cannot hold: ValueError: it has nanoseconds: return plain "),
    (b"raw", "value is bytes, which XCom cannot hold: decode it to text"),
    ({"metrics": [0, 1, 2, b"raw"]}, "value['metrics'][3] is bytes, "),
    (bytearray(1), "value is bytearray, "),
    (memoryview(b""), "value is memoryview, "),
    ([1j], "value[0] is complex, which XCom cannot hold: return [z.real, z.imag]"),
    (np.complex64(1), "value is numpy.complex64, which XCom cannot hold: it holds complex64"),
    (np.array([1j]), "value is numpy.ndarray, which XCom cannot hold: it holds complex128"),
    (np.bytes_(b"a"), "value is numpy.bytes_"),
    (np.array([b"a"]), "value[0] is bytes, "),
    (np.timedelta64(1, "s"), "value is numpy.timedelta64, which XCom cannot hold: it holds "
        "timedelta"),
    (np.array([2**63], dtype=np.uint64), "value[0] is an integer beyond ±(2**63 - 1)"),
    (torch.ones(1, dtype=torch.complex64), "value[0] is complex"),
    (torch.ones(1, device="meta"), "value is torch.Tensor, which XCom cannot hold: torch cannot "
        "read"),
    (torch.float32, "value is torch.dtype, which XCom cannot hold: return numbers, text, lists"),
    ((2**63,), "value[0] is an integer beyond ±(2**63 - 1), which XCom cannot keep: return it as "
        "text"),
    (-(2**63), "value is an integer beyond"),
    (10**5000, "value is an integer beyond"),
    (Model.model_construct(at=object()), "Model, which XCom cannot hold: PydanticSerializationError"),
    ([DataFrame()], "value[0] is pandas.DataFrame, which XCom cannot hold: ModuleNotFoundError: No module "),
    (object(), "value is object, "),
    (len, "value is builtin_function_or_method, "),
    (Report, "value is type, "),
    (ValueError("x"), "value is ValueError, "),
    (range(3), "value is range, "),
    (iter(()), "value is tuple_iterator, "),
    ({"a": Report(Point(0, {1: b""}))}, "value['a'].loss.y[1] is bytes, "),
    (["a\0b"], "value[0] holds a NUL character"),
    (["\ud800"], "value[0] is text that is not Unicode"),
    (Path("\udcff"), "value is text that is not Unicode"),
    ({"\udcff": 1}, "value['\\udcff'] is text that is not Unicode"),
    ({1.5: 0}, "value[1.5] is under a key of type float: use a str"),
    ({(1, 2): 0}, "value[(1, 2)] is under a key of type tuple: use a str"),
    ({10**5000: 0}, "value[int] is under a key of type int: use a str"),
    ({b"k": 0}, "value[b'k'] is under a key of type bytes"),
    ({1: 0, "1": 0}, "value['1'] is under a key that becomes '1', as another one does: rename it"),
    ({None: 0, "None": 0}, "value['None'] is under a key that becomes 'None'"),
    (cyclic_list(), "value[1]['again'] contains itself"),
    (cyclic_array(), "value[0] contains itself"),
    (nested(101), f"value{'[0]' * 9}...{'[0]' * 5} is nested more than 100 deep"),
    (nested(100_000), "is nested more than 100 deep"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    REFUSED,
    ids=[f"{number}: {text}" for number, (_, text) in enumerate(REFUSED)],
)
def test_a_value_is_refused_with_its_place_and_the_rank(value: Any, text: str) -> None:
    with pytest.raises(ResultError) as caught:
        encode(value, rank=7, limit=PLENTY)
    assert str(caught.value).startswith("rank 7: value")
    assert text in str(caught.value)


RESERVED = ["__classname__", "__version__", "__data__", "__id__", "__cache__", "__type", "__source", "__var"]  # fmt: skip


@pytest.mark.parametrize("key", RESERVED)
def test_a_key_that_airflow_reserves_is_refused(key: str) -> None:
    with pytest.raises(ResultError, match=f"rank 0: value.'a'..'{key}'. is under a key that Airfl"):
        encode({"a": {key: 1}}, rank=0, limit=PLENTY)


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = [1]
    assert decoded([shared, {"a": shared}]) == [[1], {"a": [1]}]
    assert decoded(nested(100)) == nested(100)


FEW = settings(derandomize=True, max_examples=30, deadline=None)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-GREATEST, GREATEST),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0_"))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8
)


@FEW
@given(value=JSON)
def test_what_is_plain_already_comes_back_as_it_was(value: Any) -> None:
    assert decoded(value) == value


@FEW
@given(value=st.floats())
def test_any_float_is_read_back_by_float(value: float) -> None:
    back = float(json.loads(encode(value, rank=0, limit=PLENTY)))
    assert back == value or (math.isnan(back) and math.isnan(value))


@FEW
@given(value=JSON | st.sets(SCALARS))
def test_the_limit_is_exact(value: Any) -> None:
    """What is counted on the way is a lower bound: it never refuses what would fit."""
    size = len(encode(value, rank=0, limit=PLENTY))
    assert len(encode(value, rank=0, limit=size)) == size
    with pytest.raises(ResultError, match="bytes as JSON"):
        encode(value, rank=0, limit=size - 1)


@pytest.mark.parametrize("value", [one for one, _ in KINDS], ids=NAMES)
def test_the_limit_is_exact_for_each_kind(value: Any) -> None:
    size = len(encode(value, rank=0, limit=PLENTY))
    assert len(encode(value, rank=0, limit=size)) == size
    if b'"numpy.' in encode(value, rank=0, limit=PLENTY):
        size = len(encode(value, rank=0, limit=size - 1))  # it fits as plain numbers
    with pytest.raises(ResultError, match="bytes as JSON"):
        encode(value, rank=0, limit=size - 1)


@FEW
@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    kind=st.sampled_from(["i1", "u2", "i4", "f2", "f4", "f8", "?"]),
    data=st.data(),
)
def test_arrays_and_tensors_become_the_lists_that_make_them_again(
    shape: list[int], kind: str, data: st.DataObject
) -> None:
    size = math.prod(shape)
    bits = data.draw(st.binary(min_size=8 * size, max_size=8 * size))
    array = np.frombuffer(bits[: size * np.dtype(kind).itemsize], dtype=kind).reshape(shape)
    if kind == "?":
        array = np.frombuffer(bits, dtype=np.uint8)[:size].reshape(shape) > 127
        array = np.asarray(array)  # without dimensions it has become a scalar
    expected = floats(array.tolist())
    assert decoded(array) == expected
    assert decoded(torch.from_numpy(array.copy())) == expected


def floats(value: Any) -> Any:
    """NaN and infinity as the text that stands for them."""
    if isinstance(value, list):
        return [floats(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def test_scalars_of_numpy_are_plain_numbers_where_they_would_not_fit_otherwise() -> None:
    """A list of 20,000 losses was never too big for XCom."""
    losses = [np.float64(0.5)] * 20_000
    assert json.loads(encode({"losses": losses}, rank=0, limit=2**20)) == {"losses": losses}
    array, arrays = np.ones(9), list[Any]()
    found = encode([array, *losses], rank=0, limit=2**20, arrays=arrays)
    assert json.loads(found)[1:] == losses
    assert len(arrays) == 1


def test_too_big_a_value_says_its_size_the_limit_and_the_way_out() -> None:
    with pytest.raises(ResultError) as caught:
        encode("ü" * 1000, rank=3, limit=5000)
    assert str(caught.value) == (
        "rank 3: the returned value takes 6,002 bytes as JSON; the limit is 5,000. Raise "
        "result_limit, give the task a results_path, or write it to a file or object store and "
        "return its path"
    )


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.broadcast_to(np.float32(0), (10**6, 10**6)), "a float32 array of shape (1000000, "
            "1000000)"),
        (torch.zeros(1).expand(10**12), "a torch.float32 tensor of shape (1000000000000,)"),
        (torch.empty(10**12, device="meta"), "a torch.float32 tensor of shape (1000000000000,)"),
    ],
)  # fmt: skip
def test_a_giant_array_is_refused_before_it_is_read(array: Any, name: str) -> None:
    with pytest.raises(ResultError) as caught:
        encode({"weights": array}, rank=0, limit=10**6)
    assert f"bytes as JSON, of which value['weights'] is {name}; the limit" in str(caught.value)


def test_many_things_that_fit_one_by_one_are_refused_together_and_early() -> None:
    read = []

    def heavy() -> Any:
        read.append(1)
        return np.zeros(400)

    class Lazy(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return heavy()

    with pytest.raises(ResultError, match="at least"):
        encode(Lazy.fromkeys(map(str, range(1000))), rank=0, limit=10_000)
    assert len(read) < 10


def test_a_distributed_tensor_is_refused_without_asking_the_other_ranks() -> None:
    class DTensor(torch.Tensor):  # type: ignore[misc]  # torch is not followed
        pass

    with pytest.raises(ResultError, match=r"it is spread over the ranks: return its full_tensor"):
        decoded(torch.ones(1).as_subclass(DTensor))
