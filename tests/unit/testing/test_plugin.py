"""``--elastic-chaos``: which seed a test gets. The training itself is played."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest
import importlib

chaos_run = importlib.import_module("llutil.testing.chaos_run")

@pytest.fixture(autouse=True)
def played(monkeypatch):
    monkeypatch.setattr(chaos_run, "run_under_chaos", lambda *a, **options: options)

def test_one(elastic_chaos):
    for _ in range(2):
        print("seed", elastic_chaos(print, steps=3)["seed"])

def test_two(elastic_chaos):
    options = elastic_chaos(print, steps=3, seed=7)
    print("seed", options["seed"])
    assert options["folder"].name == "elastic-chaos-1"
"""


def seeds(pytester: pytest.Pytester, *options: str) -> tuple[list[str], str]:
    """The seeds that the tests get, and all that is printed."""
    pytester.makepyfile(TESTS)
    result = pytester.runpytest("-p", "llutil.testing.plugin", "-s", *options)
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    return re.findall(r"seed (\d+)", text), text


def test_without_the_option_each_run_has_the_same_faults(pytester: pytest.Pytester) -> None:
    first, text = seeds(pytester)
    assert first == seeds(pytester)[0]
    assert len(set(first)) == 3
    assert first[2] == "7"
    assert "faults by" not in text


def test_a_seed_is_said_and_repeats_a_run(pytester: pytest.Pytester) -> None:
    one, text = seeds(pytester, "--elastic-chaos")
    found = re.search(r"faults by (--elastic-chaos=\d+)", text)
    assert found is not None
    assert seeds(pytester, found[1])[0] == one
    assert one != seeds(pytester, "--elastic-chaos=1")[0]


def test_what_is_no_seed_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest("-p", "llutil.testing.plugin", "--elastic-chaos=often")
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    assert "--elastic-chaos is 'often'; wanted a seed" in result.stderr.str()
