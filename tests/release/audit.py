"""``make audit``: known vulnerabilities and licences of all that this package needs at run time.

    python -m tests.release.audit PIP_AUDIT

Run it with the interpreter of ``.venv``: what is looked at are the distributions installed there
that the extras ``airflow``, ``torch``, ``zookeeper``, ``cli`` and ``frameworks`` need. PIP_AUDIT is
that program. It asks PyPI, or the service that ``LLUTIL_AUDIT_SERVICE`` names (``pypi``, ``osv``).
Where none can be reached, nothing is known and this fails; ``LLUTIL_AUDIT_SERVICE=none`` looks at
licences alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["is_allowed", "licence_of", "needed", "report_problems"]

_OURS = "airflow-provider-elastic-launch"
_EXTRAS = ("airflow", "torch", "zookeeper", "cli", "frameworks")

_ALLOWED = {
    *("0bsd", "apache-2.0", "blueoak-1.0.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0"),
    *("cnri-python", "isc", "llvm-exception", "mit", "mit-0", "mit-cmu", "mpl-2.0", "ncsa"),
    *("psf-2.0", "python-2.0", "unlicense", "zlib"),
}
"""SPDX identifiers. With each of them, this package may be used and passed on beside the
dependency, which is not changed. MPL-2.0 asks for changes of its own files alone.
"""

_SPELLED = {
    "3-clause bsd license": "bsd-3-clause",
    "apache 2.0": "apache-2.0",
    "apache 2.0 license": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "apache license, version 2.0": "apache-2.0",
    "apache license": "apache-2.0",
    "apache software license": "apache-2.0",
    "apache": "apache-2.0",
    "bsd license": "bsd-3-clause",
    "bsd": "bsd-3-clause",
    "isc license (iscl)": "isc",
    "mit license": "mit",
    "mozilla public license 2.0 (mpl 2.0)": "mpl-2.0",
    "python software foundation license": "psf-2.0",
    "the unlicense (unlicense)": "unlicense",
    "zlib/libpng license": "zlib",
}
"""What older metadata say in the place of an SPDX identifier. Both names of the BSD licences
without a number of clauses allow what we need.
"""

_EXCEPTIONS: Mapping[str, str] = {
    "text-unidecode": (
        "it can be had under the Artistic License, which lets anybody use it unchanged; Airflow "
        "needs it by way of python-slugify, and no part of it comes with this package"
    ),
}
"""Distributions with another licence, and why they may be needed all the same."""

_IGNORED: Mapping[str, str] = {}
"""Vulnerabilities that are known and do not concern this package, by their id, and why."""


def is_allowed(expression: str) -> bool:
    """Whether a licence expression is on the list: all of its parts, or one of its choices."""
    choices = re.split(r"\s+OR\s+", expression.replace("(", " ").replace(")", " "))
    if expression.strip().lower() in _SPELLED:
        choices = [expression]
    parts = (re.split(r"\s+AND\s+|\s+WITH\s+|\s*;\s*", choice.strip()) for choice in choices)
    return any(
        all(_SPELLED.get(part.lower(), part.lower()) in _ALLOWED for part in choice)
        for choice in parts
    )


def licence_of(metadata: Message) -> str:
    """What a distribution says: its expression, else its classifiers, else a line of text."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    classifiers = [
        name.rsplit(" :: ", 1)[-1]
        for name in metadata.get_all("Classifier", [])
        if name.startswith("License :: ") and not name.endswith(":: OSI Approved")
    ]
    if classifiers:
        return "; ".join(classifiers)
    return str(metadata["License"] or "unknown").strip().splitlines()[0]


def needed(extras: Iterable[str] = _EXTRAS) -> dict[str, Distribution]:
    """Ours and all that it needs with these extras, as it is installed, by name.

    :raises PackageNotFoundError: ours is not installed.
    """
    found: dict[str, Distribution] = {}
    todo = [(_OURS, frozenset(extras))]
    seen = set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name == _OURS:
                raise
            continue  # a marker that pip knew better, such as that of another platform
        for line in found[name].requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *wanted)):
                inner = frozenset(requirement.extras)
                todo.append((canonicalize_name(requirement.name), inner))
    return found


def report_problems(report: Mapping[str, Any], ignored: Mapping[str, str] = _IGNORED) -> list[str]:
    """What is wrong by a report of pip-audit in JSON, a line each."""
    lines = []
    for row in report["dependencies"]:
        name = f"{row['name']} {row.get('version', '')}".strip()
        if reason := row.get("skip_reason"):
            lines.append(f"{name}: nothing is known of it ({reason})")
        for vulnerability in row.get("vulns", ()):
            names = {vulnerability["id"], *vulnerability.get("aliases", ())}
            if not names & ignored.keys():
                mended = ", ".join(vulnerability.get("fix_versions", ())) or "none"
                lines.append(f"{name}: {'/'.join(sorted(names))}, mended in: {mended}")
    return lines


def _vulnerabilities(pip_audit: str, service: str, found: Mapping[str, Distribution]) -> list[str]:
    """What pip-audit says of all but ours, which no service knows."""
    pins = [f"{name}=={has.version.split('+')[0]}" for name, has in found.items() if name != _OURS]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(sorted(pins)) + "\n")
        file.flush()
        options = ("--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off")
        done = subprocess.run(
            [pip_audit, "--vulnerability-service", service, *options, "-r", file.name],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:]
        return [f"no answer from the vulnerability service {service!r}: {' '.join(last)}"]
    if all("skip_reason" in row for row in report["dependencies"]):
        return [f"the vulnerability service {service!r} knows none of these: is it a mirror?"]
    return report_problems(report)


def main(pip_audit: str) -> int:
    """0 if nothing is wrong."""
    found = needed()
    licences = {name: licence_of(has.metadata) for name, has in sorted(found.items())}
    problems = [
        f"{name}: licence {licence!r} is not on the list"
        for name, licence in licences.items()
        if not is_allowed(licence) and name not in _EXCEPTIONS
    ]
    print(f"licences of {len(found)} distributions: {len(problems)} not on the list")
    for name, reason in _EXCEPTIONS.items():
        print(f"  excepted: {name} ({licences.get(name, 'not installed')}): {reason}")
    service = os.environ.get("LLUTIL_AUDIT_SERVICE", "pypi")
    if service != "none":
        vulnerable = _vulnerabilities(pip_audit, service, found)
        print(f"known vulnerabilities: {len(vulnerable)} lines")
        problems += vulnerable
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute().as_posix()))
