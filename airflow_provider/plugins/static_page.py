"""``StaticPage``: an ASGI application that serves the files beside it in ``page``, to anybody.

They are the same for everybody and hold no data, so there is nothing to protect. Their headers keep
the page from running or loading anything but these files, and from being framed by other sites.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "StaticPage"]

_FOLDER = Path(__file__).with_name("page")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A browser asks each time whether a file has changed: so an upgrade is seen at once.
    "Cache-Control": "no-cache",
}
"""What each answer says to the browser."""

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class StaticPage:
    """Serves the page. Starlette is imported at the first request."""

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """See ASGI. Mounted in Airflow's application, it gets HTTP alone."""

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await _application()(scope, receive, send_with_headers)


@functools.cache
def _application() -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    return Starlette(routes=[Mount("/", StaticFiles(directory=_FOLDER))])
