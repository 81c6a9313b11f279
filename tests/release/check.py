"""``make release-check``: the wheel, installed as a user would, and used.

    python -m tests.release.check FOLDER

takes the wheel of a folder. It makes two fresh virtual environments below the temporary folder,
outside of the clone: one with torch and without Airflow, one with Airflow and without torch, both
with the versions of ``constraints.txt``. ``torch_alone.py`` and ``airflow_alone.py`` run there, in
an empty home. The interpreter that runs this is the one that is tried; in the environment,
``LLUTIL_RELEASE_AIRFLOW_PYTHON`` is another one for Airflow, and ``LLUTIL_RELEASE_TORCH`` another
version of torch than that of the constraints. It needs the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["main"]

_HERE = Path(__file__).parent
_CONSTRAINTS = _HERE.parents[1] / "constraints.txt"
# Of the caller's environment: what pip may need, and where temporary files go.
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "no_proxy", "NO_PROXY", "TMPDIR", "LANG")


def _environment(home: Path) -> dict[str, str]:
    """The environment of a user who has set up nothing."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    return {
        **kept,
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def _run(
    name: str, argv: list[str | Path], folder: Path, environment: Mapping[str, str], limit: float
) -> None:
    """Run a program, and say how long it took.

    :raises SystemExit: it failed, with what it printed.
    """
    begin = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    passed = time.monotonic() - begin
    if done.returncode != 0:
        sys.exit(f"{name} failed after {passed:.0f} s:\n{done.stdout[-6000:]}")
    print(f"{name}: ok, {passed:.0f} s", flush=True)


def _constraints(folder: Path) -> Path:
    """The file of constraints, with another torch if one is asked for."""
    wanted = os.environ.get("LLUTIL_RELEASE_TORCH")
    lines = _CONSTRAINTS.read_text().splitlines()
    if wanted:
        lines = [line for line in lines if not line.startswith("torch==")] + [f"torch=={wanted}"]
    file = folder / "constraints.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def _installed(
    name: str, python: str, wheel: Path, folder: Path, environment: Mapping[str, str]
) -> Path:
    """The interpreter of a fresh environment with the wheel and some of its extras."""
    venv = folder / f"with-{name}"
    _run(f"venv {name}", [python, "-m", "venv", venv], folder, environment, 120)
    extras = {"torch": "torch,zookeeper,cli", "airflow": "airflow"}[name]
    _run(
        f"pip install [{extras}]",
        [
            *(venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--constraint", folder / "constraints.txt", f"{wheel}[{extras}]"),
        ],
        folder,
        environment,
        1800,
    )
    _run(f"pip check {name}", [venv / "bin" / "pip", "check"], folder, environment, 120)
    return venv / "bin" / "python"


def main(dist: str) -> None:
    """Do all of it.

    :raises SystemExit: something failed.
    """
    (wheel,) = Path(dist).resolve().glob("*.whl")
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    other = os.environ.get("LLUTIL_RELEASE_AIRFLOW_PYTHON", sys.executable)
    with tempfile.TemporaryDirectory(prefix="llutil-release-") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        environment = _environment(home)
        _constraints(folder)
        for script in ("torch_alone.py", "airflow_alone.py"):
            shutil.copy(_HERE / script, home)
        print(f"{wheel.name}, {version}, in {folder}", flush=True)
        torch = _installed("torch", sys.executable, wheel, folder, environment)
        _run("torch alone", [torch, "torch_alone.py", home], home, environment, 300)
        airflow = _installed("airflow", other, wheel, folder, environment)
        _run("Airflow alone", [airflow, "airflow_alone.py", torch], home, environment, 600)


if __name__ == "__main__":
    main(sys.argv[1])
