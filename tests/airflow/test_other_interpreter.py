"""``python=``: a job under another interpreter, which has llutil and torch, and no Airflow."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.airflow.client import Client, Run

pytestmark = pytest.mark.airflow

_ROOT = Path(__file__).parents[2]
_SITE = Path(sysconfig.get_path("purelib"))
_LENT = (
    *("cloudpickle", "msgspec", "tenacity"),
    *("torch", "torchgen", "functorch", "numpy", "numpy.libs", "typing_extensions.py", "filelock"),
    *("fsspec", "jinja2", "markupsafe", "networkx", "sympy", "mpmath", "setuptools"),
)
"""What llutil and torch need, by import name."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that borrows our llutil, torch and what they need, and nothing else."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for package in (_ROOT / "llutil", *(_SITE / name for name in _LENT)):
        if package.exists():  # numpy.libs, for one, is not in every build
            (site / package.name).symlink_to(package)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def elsewhere(client: Client, python: Path) -> Run:
    """The finished run of the DAG whose jobs use that interpreter."""
    client.await_dags("elsewhere")
    return client.trigger("elsewhere", {"python": str(python)}).finish(None, seconds=300)


def test_interpreter_has_no_airflow(python: Path) -> None:
    code = "import llutil.launcher, torch\ntry:\n import airflow\nexcept ImportError: print('none')"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, cwd="/", timeout=120, check=True
    )
    assert done.stdout.strip() == "none"


def test_function_of_the_dag_file_runs_there_with_torch(elsewhere: Run, python: Path) -> None:
    elsewhere.task("add_ranks").await_state("success", seconds=1)
    values = elsewhere.task("add_ranks").xcoms()["return_value"]
    assert values == {
        rank: {"python": str(python), "airflow": False, "total": 3.0} for rank in ("0", "1")
    }


def test_script_runs_there_and_gets_its_arguments_as_they_are(elsewhere: Run) -> None:
    elsewhere.task("script").await_state("success", seconds=1)
    assert "[rank 0] no Airflow here, but 'several words'" in elsewhere.task("script").text()
