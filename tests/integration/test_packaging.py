"""The distribution as a user gets it: what wheel and sdist hold, and that the wheel works where
little else is installed. ``make release-check`` installs it with its dependencies, too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.contents import files_of, problems

_ROOT = Path(__file__).parents[2]
_SOURCES = (
    *("llutil", "airflow_provider", "setup.cfg", "pyproject.toml", "MANIFEST.in"),
    *("README.md", "LICENSE"),
)


def _run(*argv: str | Path) -> str:
    """The output of a command that must succeed."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def _interpreter(folder: Path) -> Path:
    """A fresh interpreter without any package."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it, made from a clean copy of the
    sources with the tools that are installed.
    """
    folder = tmp_path_factory.mktemp("sources")
    for name in _SOURCES:
        if (_ROOT / name).is_dir():
            shutil.copytree(
                _ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(_ROOT / name, folder)
    (folder / "tests").mkdir()  # what must not get in
    (folder / "tests" / "test_it.py").touch()
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    """The wheel."""
    (built,) = archives.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and nothing else."""
    python = _interpreter(tmp_path_factory.mktemp("empty") / "venv")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
    return python


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_wheel_and_sdist_hold_both_packages_as_they_are_and_no_tests(
    archives: Path, kind: str
) -> None:
    (archive,) = archives.glob(kind)
    assert problems(archive) == []


def test_wheel_says_that_both_packages_are_typed(wheel: Path) -> None:
    names = set(files_of(wheel))
    assert {"llutil/py.typed", "airflow_provider/py.typed"} <= names


def test_installed_alone_it_imports_without_anything_else(installed: Path) -> None:
    loaded = _run(
        installed,
        "-I",
        "-c",
        "import sys, llutil, airflow_provider\n"
        "from llutil.launcher import Events, LaunchConfig, Std, worker\n"
        "LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))",
    ).split()
    assert not {"torch", "airflow", "grpc", "kazoo", "etcd3"}.intersection(loaded)


def test_airflow_finds_the_provider_by_its_entry_point(installed: Path) -> None:
    found = _run(
        installed,
        "-I",
        "-c",
        "import importlib.metadata as m, json\n"
        "(point,) = m.entry_points(group='apache_airflow_provider')\n"
        "print(json.dumps([point.dist.name, point.load()()]))",
    )
    name, info = json.loads(found)
    assert name == info["package-name"] == "airflow-provider-elastic-launch"


def test_metadata_asks_for_airflow_and_torch_only_as_extras(installed: Path) -> None:
    found = _run(
        installed,
        "-I",
        "-c",
        "import importlib.metadata as m\n"
        "print(*m.requires('airflow-provider-elastic-launch'), sep='\\n')",
    ).splitlines()
    always = {line.split(";")[0].strip() for line in found if "extra ==" not in line}
    assert {re.split("[<>=]", line)[0] for line in always} == {
        "cloudpickle",
        "etcd3",
        "msgspec",
        "tenacity",
    }
    assert any("apache-airflow" in line and 'extra == "airflow"' in line for line in found)
    assert any("torch" in line and 'extra == "torch"' in line for line in found)
