"""Faults are asked for as values or as text, and what makes no sense is refused by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llutil.chaos import cut, hang, kill, oom, preempt, random_faults, slow
from llutil.chaos.fault_texts import faults_in, texts_of
from llutil.chaos.faults import Fault
from llutil.errors import ConfigError

ALL: list[Fault] = [
    kill(rank=1, step=5),
    preempt(node=1, step=20),
    hang(rank=0, step=7),
    oom(rank=1, step=3),
    cut(node=0, seconds=20, step=4),
    cut(node=0, seconds=0.5),
    slow(rank=1, factor=3),
    slow(rank=1, factor=1.5, step=4, steps=10),
]


@pytest.mark.parametrize("fault", ALL, ids=str)
def test_the_text_of_a_fault_is_that_fault(fault: Fault) -> None:
    assert faults_in(str(fault)) == [fault]


@pytest.mark.parametrize("between", [", ", "; ", " ", "\n", ","])
def test_a_text_may_have_several(between: str) -> None:
    assert faults_in(between.join(map(str, ALL))) == ALL


def test_spaces_do_not_matter() -> None:
    assert faults_in("  kill ( rank = 1 ,step=5 )\n;") == [kill(rank=1, step=5)]
    assert faults_in(" \n") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kil(rank=1, step=5)", "there is no fault 'kil'; wanted one of kill, preempt, hang, oom"),
        ("kill", "has 'kill'; wanted faults such as kill(rank=1, step=5)"),
        ("kill(rank=1, step=5", "wanted faults such as"),
        ("kill(rank=1)", "wanted kill(rank=..., step=...)"),
        ("kill(1, 5)", "wanted kill(rank=..., step=...)"),
        ("kill(rank=1, step=5, node=0)", "wanted kill(rank=..., step=...)"),
        ("kill(rank=1, rank=2, step=5)", "wanted kill(rank=..., step=...)"),
        ("kill(rank=1, step=0)", "step is 0; wanted a whole number of 1 or more"),
        ("kill(rank=-1, step=1)", "rank is -1; wanted a whole number of 0 or more"),
        ("kill(rank=one, step=1)", "rank is 'one'; wanted a whole number"),
        ("kill(rank=1, step=1.5)", "step is '1.5'; wanted a whole number"),
        ("kill(rank=1, step=9999999999999999)", "wanted less than 2**47"),
        ("cut(node=0)", "wanted cut(node=..., seconds=..., step=1)"),
        ("cut(node=0, seconds=0)", "seconds is 0; wanted more than 0"),
        ("cut(node=0, seconds=1e9)", "wanted more than 0, and at most a day"),
        ("cut(node=0, seconds=inf)", "seconds is 'inf'; wanted a number"),
        ("slow(rank=0, factor=1)", "factor is 1; wanted more than 1"),
        ("\0", "wanted faults such as"),
        ("kill(rank=1, step=5) and more", "has 'and more'; wanted faults such as"),
        ("random_faults(seed=1)", "wanted random_faults(seed=..., ranks=..., steps=..., count=3"),
        ("random_faults(seed=1, ranks=0, steps=1)", "ranks is 0; wanted a whole number of 1"),
        ("random_faults(seed=1, ranks=1, steps=1, kinds=kill+x)", "kinds are ('kill', 'x')"),
        ("random_faults(seed=1, ranks=1, steps=1, count=201)", "wanted at most 200"),
    ],
)
def test_what_makes_no_sense_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        faults_in(text)
    assert said in str(refused.value)
    assert {problem.field for problem in refused.value.problems} == {"chaos"}


def test_all_problems_of_a_text_are_given_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        faults_in("kil(), kill(rank=-1, step=0), hang()")
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize("step", [0, -1, 1.0, "5", True, None])
def test_a_value_is_checked_where_it_is_made(step: Any) -> None:
    with pytest.raises(ConfigError, match="step is"):
        kill(rank=0, step=step)
    with pytest.raises(ConfigError, match="a number"):
        cut(node=0, seconds=step if not isinstance(step, int | float) else "1")  # type: ignore[arg-type]


def test_a_configuration_holds_texts_and_what_is_none_stays_to_be_refused() -> None:
    assert texts_of(None) == ()
    assert texts_of(ALL[0]) == texts_of("kill(rank=1, step=5)") == ("kill(rank=1, step=5)",)
    assert texts_of([ALL[0], "oom(rank=0, step=1)", 5]) == (str(ALL[0]), "oom(rank=0, step=1)", 5)
    assert texts_of(5) == 5


def test_a_seed_gives_the_same_faults_everywhere_as_value_and_as_text() -> None:
    kinds = ("kill", "preempt", "hang", "oom", "cut", "slow")
    first = random_faults(seed=7, ranks=4, steps=50, count=100, nodes=2, kinds=kinds)
    text = "random_faults(seed=7, ranks=4, steps=50, count=100, nodes=2, kinds="
    assert list(first) == faults_in(f"{text}{'+'.join(kinds)})")
    assert first != random_faults(seed=8, ranks=4, steps=50, count=100, nodes=2, kinds=kinds)
    assert {one.word for one in first} == set(kinds)
    assert [one.step for one in first] == sorted(one.step for one in first)
    assert max(one.step for one in first) <= 50
    assert faults_in(", ".join(map(str, first))) == list(first)


def test_a_dag_file_that_imports_faults_imports_little() -> None:
    code = "import sys; from llutil.chaos import kill, random_faults; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("llutil.")}
    assert {name.split(".")[1] for name in ours} == {"chaos", "errors", "failure"}
