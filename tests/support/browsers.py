"""Headless Chromium, Debian's own, for pages that are looked at in a real browser.

Screenshots go to the folder that ``LLUTIL_SCREENSHOTS`` names; without it, nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

__all__ = ["chromium", "open_page", "screenshot"]

_PROGRAM = "/usr/bin/chromium"
_DEADLINE = 60_000.0
"""Milliseconds for whatever a page is waited for. It comes much earlier, if the machine is not
busy.
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser. While it is there, no other event loop can run on this thread."""
    if not Path(_PROGRAM).exists():
        raise RuntimeError(f"there is no {_PROGRAM}: as root, run 'make browser'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_PROGRAM,
            # Chromium's sandbox refuses to run as root; containers have a small /dev/shm.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Page]:
    """A page with cookies of its own. What its scripts raise fails the test."""
    errors: list[str] = []
    with browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale="en-GB",
    ) as context:
        context.set_default_timeout(_DEADLINE)
        expect.set_options(timeout=_DEADLINE)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert errors == []


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of all of the page under that name, if somebody wants pictures."""
    if folder := os.environ.get("LLUTIL_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)
