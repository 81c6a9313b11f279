"""What a benchmark ran on: the machine, and the versions of what it measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

__all__ = ["commit", "load", "machine"]

_ROOT = Path(__file__).parents[3]
_PACKAGES = {"torch": "torch", "Airflow": "apache-airflow-core", "etcd3": "etcd3", "kazoo": "kazoo"}
_ZOOKEEPER = Path("/usr/share/java/zookeeper.jar")


def machine() -> dict[str, str]:
    """The facts about it, in words."""
    facts = {
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "processor": _processor(),
        "system": "Linux " + ".".join(platform.release().split(".")[:2]),
        "Python": platform.python_version(),
    }
    facts |= {name: metadata.version(package) for name, package in _PACKAGES.items()}
    return facts | {"etcd": _etcd(), "ZooKeeper": _zookeeper()}


def load() -> float:
    """How many processes have run or waited for the processor in the last minute, by and large."""
    return round(os.getloadavg()[0], 2)


def commit() -> str:
    """The commit of this work tree; with a plus, if files that are no figures differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", ":!benchmarks", ":!*.md")
    return f"{head}+" if changed else head


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    named = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return named[1] if named else platform.machine()


def _etcd() -> str:
    from tests.support.etcd_servers import etcd_program

    said = subprocess.run([etcd_program(), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split("\n", 1)[0].removeprefix("etcd Version: ")


def _zookeeper() -> str:
    if not _ZOOKEEPER.exists():
        return "none"
    with zipfile.ZipFile(_ZOOKEEPER) as jar:
        said = jar.read("META-INF/maven/org.apache.zookeeper/zookeeper/pom.properties").decode()
    named = re.search(r"^version=([\d.]+)", said, re.MULTILINE)
    return named[1] if named else "unknown"
