"""One browser and one server for all tests of the page. They start no job, so nobody looks for what
a job has left, and nobody needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.integration.provider.plugins.rest_api import World, served
from tests.support.browsers import chromium, open_page


@pytest.fixture(scope="session", autouse=True)
def _torch() -> None:
    """Not imported."""


@pytest.fixture(autouse=True)
def temporary() -> None:
    """Not made: processes and threads of the browser and the server come and go."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """What the server answers; each test tells it."""
    with served() as world:
        yield world


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed before other tests on this thread want an event loop."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page of a wide screen."""
    with open_page(browser) as page:
        yield page
