"""Rules for the whole test run: its order, its seed, its own Airflow home, and that nothing is
skipped.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# A busy machine makes no property wrong: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Files whose asserts should explain themselves, named before anything imports them.
pytest.register_assert_rewrite(
    "tests.support.memory_rendezvous",
    "tests.support.store_history",
    "tests.integration.rendezvous.jobs",
    "tests.support.ledger_contract",
    "tests.support.ledger_traffic",
    "tests.support.training_ranks",
)

_ROOT = Path(__file__).parent
_ORDER = ("unit", "simulation", "integration", "airflow")  # what is quick to fail comes first
_LONG = (
    "rendezvous/test_store_faults.py",
    "rendezvous/test_killed_trainings.py",
    "rendezvous/test_members.py",
    "agent/failures/test_worker_endings.py",
    "agent_process/test_agent_process.py",
    "rendezvous/handlers/test_torch_backends.py",
)
"""The files of the integration tests that take longest. Whoever of several processes begins one of
them last would be alone in the end.
"""


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its option
def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's Airflow out of the tests, and let Ctrl-C end what they start, also where a
    shell runs them in the background and so has it ignored; choose hypothesis' seed here, so that
    it can be printed.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Airflow reads and writes its home as soon as it is imported. A folder that no test changes.
    home = tempfile.TemporaryDirectory(prefix="airflow-home-")
    config.add_cleanup(home.cleanup)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = home.name
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to repeat this run."""
    return f"hypothesis seed: {config.option.hypothesis_seed} (repeat with --hypothesis-seed)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is quick to fail comes first; with several processes (``-n``), what takes longest.
    Otherwise as found.
    """
    several = hasattr(config, "workerinput")

    def place(item: pytest.Item) -> tuple[int, bool]:
        room, _, file = item.path.relative_to(_ROOT).as_posix().partition("/")
        index = _ORDER.index(room) if room in _ORDER else len(_ORDER)
        return (-index, file not in _LONG) if several else (index, False)

    items.sort(key=place)


class _Shares(LoadScopeScheduling):
    """What several processes divide among them: files, but all that needs an Airflow stays with the
    one that has it.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "airflow" if file.startswith("tests/airflow/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Shares:
    """Take the place of ``--dist``, whose groups pytest 9.2 does not know any more (pytest-xdist
    3.8.0).
    """
    return _Shares(config, log)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at it in each test."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """A task that ran in this very process leaves its names in the environment, where a launch
    would find them.
    """
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test has tested nothing: it fails. (An expected failure has, and does not.)"""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report
