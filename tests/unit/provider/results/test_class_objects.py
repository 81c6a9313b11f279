"""What a rank returned comes out of Airflow's XCom, and out of a file, as what it was."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import importlib.util
import json
import math
import sys
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import attrs
import numpy as np
import pydantic
import pytest
from airflow.sdk import serde
from pydantic import JsonValue, TypeAdapter

from airflow_provider.results.class_objects import for_xcom, from_json
from llutil.errors import ResultError
from llutil.serialization.class_values import node
from llutil.serialization.json_values import encode

D = decimal.Decimal


@dataclasses.dataclass(frozen=True)
class Metrics:
    loss: Any
    made: int = dataclasses.field(init=False, default=3)


@attrs.frozen
class Attrs:
    _private: Any
    when: Any = None


@dataclasses.dataclass
class Report:
    losses: list[Any]
    mean: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.mean = sum(self.losses) / len(self.losses)


@dataclasses.dataclass
class Scaled:
    scale: dataclasses.InitVar[float]
    mean: float = dataclasses.field(init=False)

    def __post_init__(self, scale: float) -> None:
        self.mean = scale * 2


@attrs.frozen
class Checked:
    _losses: Any
    mean: Any = attrs.field(init=False, default=None)


class Model(pydantic.BaseModel):
    at: dt.date
    loss: float = 0.5


class Own:
    __version__ = 2

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def serialize(self) -> str:
        return self.text

    @staticmethod
    def deserialize(data: str, version: int) -> Own:
        assert version == Own.__version__
        return Own(data)


class Point(NamedTuple):
    x: int
    y: int


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SAME: list[Any] = [
    (1, (2, [3])),
    {3, 1, 2},
    frozenset({("a", 1), ("b", 2)}),
    D("0.10"),
    D("0.12345678901234567890123456789"),
    D("1E+30"),
    D("12"),
    D("Infinity"),
    uuid.UUID(int=7),
    dt.date(2026, 1, 2),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - one without a zone
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC),
    dt.datetime(2026, 7, 2, tzinfo=BERLIN),
    dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    dt.timedelta(days=3, microseconds=1),
    BERLIN,
    np.float32(0.1),
    np.float64(0.1),
    np.float16(0.5),
    np.int8(-3),
    np.uint64(2**63 - 1),
    np.bool_(True),
    Metrics(Metrics((1, D("0.1")))),
    {Metrics(1)},
    Attrs(1, dt.timedelta(1)),
    Checked((1,)),
    Model(at=dt.date(2026, 1, 2)),
    Own("text"),
    {"a": [Own("text"), {"b": Metrics({"c": np.float32(1)})}]},
]
NAMES = [f"{number}: {type(value).__name__}" for number, value in enumerate(SAME)]


def forget_patterns() -> None:
    for cached in ("_get_patterns", "_get_regexp_patterns", "_match_glob", "_match_regexp"):
        getattr(serde, cached).cache_clear()


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow may read the classes of this file."""
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", f"airflow.* {__name__}.*")
    forget_patterns()


@pytest.fixture(autouse=True)
def patterns_are_read_again() -> Any:
    yield
    forget_patterns()


def sent(value: Any) -> Any:
    """What comes from the rank."""
    return json.loads(encode(value, rank=0, limit=10**6))


def through_airflow(value: Any, **more: Any) -> Any:
    """What a task downstream pulls. XCom and Airflow's API take what is pushed."""
    pushed = json.dumps(serde.serialize(for_xcom(sent(value), **more)), allow_nan=False)
    assert TypeAdapter(JsonValue).validate_json(pushed) == json.loads(pushed)
    return serde.deserialize(json.loads(pushed))


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("value", SAME, ids=NAMES)
@pytest.mark.parametrize("way", [through_airflow, lambda value: from_json(sent(value))])
def test_a_value_comes_back_as_it_was(value: Any, way: Any) -> None:
    found = way(value)
    assert found == value
    assert type(found) is type(value)


def test_a_number_that_is_none_is_one_still() -> None:
    assert math.isnan(through_airflow(np.float32("nan")))
    assert through_airflow(D("NaN")).is_nan()


def test_the_second_of_two_equal_hours_is_kept() -> None:
    value = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert through_airflow(value).timestamp() == value.timestamp()


def test_a_named_tuple_is_a_tuple_as_in_a_plain_task() -> None:
    assert through_airflow(Point(1, 2)) == (1, 2)


def test_an_object_that_airflow_may_not_read_is_the_dict_of_its_fields() -> None:
    names: list[str] = []
    value = {"a": Metrics((1, 2)), "b": {Metrics(1)}, "c": Own("text")}
    found = through_airflow(value, not_allowed=names.append)
    assert found == {
        "a": {"loss": (1, 2), "made": 3},
        "b": [{"loss": 1, "made": 3}],
        "c": "text",
    }
    assert set(names) == {f"{__name__}.Metrics", f"{__name__}.Own"}
    assert from_json(sent(value)) == found


def test_the_dict_of_an_object_has_the_fields_that_its_class_does_not_take() -> None:
    for value, fields in (
        (Report([1, 2]), {"losses": [1, 2], "mean": 1.5}),
        (Checked((1,)), {"losses": (1,), "mean": None}),
    ):
        assert through_airflow(value) == from_json(sent(value)) == fields


def changed() -> tuple[Report, Checked]:
    """Objects that their constructors do not make like this."""
    report, checked = Report([1, 2]), Checked((1,))
    report.mean = 9.0
    object.__setattr__(checked, "mean", D("0.1"))
    return report, checked


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("value", changed(), ids=["dataclass", "attrs"])
def test_a_field_that_was_changed_after_construction_is_kept(value: Any) -> None:
    found = from_json(sent(value))
    assert found == value
    assert type(found) is type(value)
    # Airflow itself would only call the class.
    fields = {name.lstrip("_"): getattr(value, name) for name in value.__annotations__}
    assert through_airflow(value) == fields


@pytest.mark.usefixtures("allowed")
def test_an_object_without_room_for_a_field_is_the_dict_of_its_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = sent(changed()[0])
    slim = dataclasses.make_dataclass("Report", ["losses"], slots=True)
    monkeypatch.setattr(sys.modules[__name__], "Report", slim)
    assert from_json(value) == {"losses": [1, 2], "mean": 9.0}


@pytest.mark.usefixtures("allowed")
def test_an_object_whose_class_wants_more_than_its_fields_is_their_dict() -> None:
    value = Scaled(0.5)
    assert from_json(sent(value)) == through_airflow(value) == {"mean": 1.0}


@pytest.mark.usefixtures("allowed")
def test_an_object_that_was_stored_with_only_what_its_class_takes_is_made() -> None:
    stored = node(f"{__name__}.Report", 0, {"losses": [1, 2]})
    assert from_json(stored) == Report([1, 2])


def test_airflows_regular_expressions_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES_REGEXP"
    monkeypatch.setenv(name, r".*\.test_class_objects\.Met.*")
    forget_patterns()
    assert through_airflow([Metrics(1), Own("a")]) == [Metrics(1), "a"]


@pytest.mark.usefixtures("allowed")
def test_the_task_needs_no_module_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may import torch, or be installed in the agent's interpreter alone."""
    module = types.ModuleType(f"{__name__}.theirs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind = dataclasses.make_dataclass("Theirs", ["loss"])
    kind.__module__ = module.__name__
    module.Theirs = kind  # type: ignore[attr-defined]
    value = sent(kind(0.5))
    monkeypatch.delitem(sys.modules, module.__name__)
    pushed = serde.serialize(for_xcom(value))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert serde.deserialize(pushed) == kind(0.5)


def test_without_numpy_its_scalars_are_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert type(through_airflow(np.float32(0.5))) is float


@pytest.mark.parametrize(
    ("present", "missing"), [(set(), "pandas and pyarrow"), ({"pandas"}, "pyarrow")]
)
def test_a_data_frame_needs_its_libraries_where_airflow_runs(
    monkeypatch: pytest.MonkeyPatch, present: set[str], missing: str
) -> None:
    frame = node("pandas.DataFrame", 1, "00")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in present or None)
    with pytest.raises(ResultError, match=f"a pandas.DataFrame, and {missing} cannot be"):
        for_xcom([frame])
    with pytest.raises(ModuleNotFoundError):
        from_json([frame])


def test_each_class_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", asked.append)
    names: list[str] = []
    for_xcom(sent([np.float32(0.5)] * 3 + [Metrics(1), Metrics(2)]), names.append)
    assert asked == ["numpy"]
    assert names == [f"{__name__}.Metrics"]


@pytest.mark.usefixtures("allowed")
def test_a_stand_in_is_shown_as_what_it_stands_for() -> None:
    assert repr(for_xcom(sent(Metrics(0.5)))) == "Metrics({'loss': 0.5})"
