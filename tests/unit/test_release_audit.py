"""Which licences `make audit` lets through, and what it makes of pip-audit's report."""

from __future__ import annotations

from email.message import Message

import pytest

from tests.release.audit import is_allowed, licence_of, report_problems


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "BSD License",
        "Apache License, Version 2.0",
        "Apache-2.0 AND MIT",
        "MIT OR GPL-3.0-only",
        "Apache-2.0 WITH LLVM-exception",
        "Apache Software License; MIT License",
        "(MIT AND PSF-2.0)",
    ],
)
def test_permissive_licences_are_allowed_in_every_spelling(expression: str) -> None:
    assert is_allowed(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "GPL-3.0-only",
        "LGPL-3.0-only",
        "MIT AND GPL-2.0-only",
        "MIT License; GNU General Public License (GPL)",
        "Other/Proprietary License",
        "unknown",
        "",
    ],
)
def test_whatever_is_not_on_the_list_is_refused(expression: str) -> None:
    assert not is_allowed(expression)


def test_a_licence_is_its_expression_or_its_classifiers_or_its_first_line() -> None:
    metadata = Message()
    assert licence_of(metadata) == "unknown"
    metadata["License"] = "MIT\nPermission is hereby granted"
    assert licence_of(metadata) == "MIT"
    metadata["Classifier"] = "License :: OSI Approved"
    metadata["Classifier"] = "License :: OSI Approved :: BSD License"
    assert licence_of(metadata) == "BSD License"
    metadata["License-Expression"] = "BSD-3-Clause"
    assert licence_of(metadata) == "BSD-3-Clause"


def test_a_vulnerability_is_named_with_its_remedy_and_an_unknown_distribution_too() -> None:
    found = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}
    report = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [found]},
            {"name": "strange", "skip_reason": "not on PyPI"},
        ]
    }
    assert report_problems(report, {}) == [
        "bad 2: CVE-1/PYSEC-1, mended in: 2.1",
        "strange: nothing is known of it (not on PyPI)",
    ]
    assert report_problems(report, {"CVE-1": "no such call is made"}) == [
        "strange: nothing is known of it (not on PyPI)"
    ]
