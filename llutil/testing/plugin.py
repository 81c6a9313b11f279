"""``--elastic-chaos`` and the fixture ``elastic_chaos``: a training under faults, in a test.

::

    def test_my_training_survives(elastic_chaos):
        run = elastic_chaos(train, ["data"], steps=20, checkpoint_every=2)
        assert run.values[0] > 0.9

The fixture chooses faults by a seed, unless the test gives ``chaos=[...]``. The seed is 0; with
``pytest --elastic-chaos`` it is another one in each run, and ``--elastic-chaos=SEED`` repeats a
run. This module may import only pytest and the standard library before the fixture is used.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llutil.testing.chaos_run import ChaosRun

__all__ = [
    "elastic_chaos",
    "elastic_chaos_popen",
    "pytest_addoption",
    "pytest_configure",
    "pytest_report_header",
]

_OPTION = "elastic_chaos"
_ANY = "random"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("elastic launch").addoption(
        "--elastic-chaos",
        dest=_OPTION,
        nargs="?",
        const=_ANY,
        metavar="SEED",
        help="choose the faults of tests with the fixture elastic_chaos by another seed in each "
        "run, or by this one; the default is 0",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed, once for all processes of the run.

    :raises pytest.UsageError: the option is no number.
    """
    given = config.getoption(_OPTION, None)
    if given == _ANY:
        inherited = getattr(config, "workerinput", {}).get(_OPTION)  # of pytest-xdist
        config.option.elastic_chaos = inherited or str(random.SystemRandom().getrandbits(32))
    elif given is not None and not given.isdecimal():
        raise pytest.UsageError(f"--elastic-chaos is {given!r}; wanted a seed, 0 or more, or none")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a process of pytest-xdist."""
    node.workerinput[_OPTION] = node.config.getoption(_OPTION, None)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how to repeat this run."""
    seed = config.getoption(_OPTION, None)
    return None if seed is None else f"faults by --elastic-chaos={seed}"


@pytest.fixture
def elastic_chaos_popen() -> Callable[..., Any]:
    """How the process of a node is started: ``subprocess.Popen``. A fixture of this name takes its
    place, for who has a quicker way.
    """
    return subprocess.Popen


@pytest.fixture
def elastic_chaos(
    request: pytest.FixtureRequest, tmp_path: Path, elastic_chaos_popen: Callable[..., Any]
) -> Callable[..., ChaosRun]:
    """Runs a training under faults; see ``llutil.testing.chaos_run.run_under_chaos``. Each test and
    each call has a seed of its own.
    """
    given = request.config.getoption(_OPTION, None) or "0"
    calls = 0

    def run(function: Callable[..., Any] | str, args: Any = (), **options: Any) -> ChaosRun:
        from llutil.testing.chaos_run import run_under_chaos

        nonlocal calls
        calls += 1
        text = f"{given} {request.node.nodeid} {calls}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        folder = tmp_path / f"elastic-chaos-{calls}"
        return run_under_chaos(
            function, args, folder=folder, popen=elastic_chaos_popen, **{"seed": seed, **options}
        )

    return run
