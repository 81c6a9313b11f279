"""The page's files, and how they are served."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

import airflow_provider.plugins.static_page
from airflow_provider.plugins.static_page import HEADERS, StaticPage

FOLDER = Path(airflow_provider.plugins.static_page.__file__).with_name("page")
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(StaticPage())
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asked())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_served_under_the_strict_headers(path):
    answer = get(path.name)
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_the_policy_allows_this_pages_own_files_alone():
    rules = dict(
        rule.strip().split(" ", 1) for rule in HEADERS["Content-Security-Policy"].split(";")
    )
    assert rules.pop("trusted-types") == "'none'"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert set(rules.values()) == {"'none'", "'self'"}
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'self'"


def test_a_browser_that_has_a_file_asks_and_gets_it_again_only_if_it_has_changed():
    first = get("main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = get("main.js", **{"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Content-Security-Policy"]
    assert get("main.js", **{"If-None-Match": '"older"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/no.js", "/../static_page.py", "/%2e%2e/static_page.py", "/..%2fstatic_page.py"]
)
def test_nothing_else_is_served(path):
    answer = get(path)
    assert answer.status_code == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_nobody_can_write():
    assert get("main.js", method="PUT").status_code == 405


def test_the_page_has_no_script_or_style_of_its_own_text_and_asks_no_other_host():
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(^|\s)// ", "", text, flags=re.MULTILINE), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_html_of_a_text(path):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(",
        path.read_text(),
    )


def test_each_file_can_be_read():
    for path in FILES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, path.name
        assert path.suffix == ".svg" or max(map(len, lines)) <= 100, path.name
