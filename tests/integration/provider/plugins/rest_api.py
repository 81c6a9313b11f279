"""A server that answers as Airflow's REST API does about one task, and serves the page of the tab.

All of it lies below a path, as behind a proxy. What it answers is what ``World`` has at the time.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from airflow_provider.plugins.static_page import StaticPage

__all__ = ["World", "served"]

_TASK = "/base/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
_OUTER = """<!doctype html><html class="{theme}"><body style="margin:0">
<iframe title="Elastic" sandbox="allow-scripts allow-same-origin allow-forms allow-downloads"
 src="{source}" style="border:0;width:100%;height:100vh"></iframe></body></html>"""


@dataclass
class World:
    """What is known of the task's instances: their facts, and their states by map index.

    ``broken`` is a status with which everything is answered, and ``detail`` what is said then;
    ``refused`` is one for orders alone. ``lost`` are files of the page that do not come.
    """

    url: str
    instances: list[dict[str, Any]] = field(default_factory=list)
    stores: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    broken: int = 0
    detail: str = "Forbidden"
    refused: int = 0
    lost: set[str] = field(default_factory=set)
    orders: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    """The greatest number of states that were asked for at the same time."""

    def tell(self, jobs: Mapping[int, tuple[dict[str, Any], Mapping[str, Any]]]) -> None:
        """From now on these are the instances, and their states."""
        self.broken = self.refused = 0
        self.detail = "Forbidden"
        self.lost.clear()
        self.orders.clear()
        self.asked.clear()
        self.at_once = 0
        self.instances = [instance for instance, _ in jobs.values()]
        self.stores = {index: store for index, (_, store) in jobs.items()}

    def address(self, task: str = "fit", map_index: str = "{MAP_INDEX}") -> str:
        """That of the page, as Airflow's UI makes it."""
        asked = f"dag_id=train&run_id=manual__2026-11-30T01%3A00%3A00%2B00%3A00&task_id={task}"
        return f"{self.url}/base/elastic-launch/index.html?{asked}&map_index={map_index}"


class _Answers:
    def __init__(self, world: World) -> None:
        self.world = world
        self._open = 0
        self._page = StaticPage()

    async def instances(self, request: Request) -> Response:
        if self.world.broken:
            return JSONResponse({"detail": self.world.detail}, self.world.broken)
        self.world.asked.append(str(request.url))
        offset, limit = (int(request.query_params[name]) for name in ("offset", "limit"))
        found = self.world.instances
        return JSONResponse(
            {"task_instances": found[offset : offset + limit], "total_entries": len(found)}
        )

    async def store(self, request: Request) -> Response:
        if self.world.broken:
            return JSONResponse({"detail": self.world.detail}, self.world.broken)
        self.world.asked.append(str(request.url))
        self._open += 1
        self.world.at_once = max(self.world.at_once, self._open)
        await asyncio.sleep(0.01)  # others may come meanwhile
        self._open -= 1
        found = self.world.stores.get(int(request.query_params["map_index"]), {})
        now = datetime.now(UTC).isoformat()
        entries = [
            {"key": key, "value": value, "updated_at": now, "expires_at": None}
            for key, value in found.items()
        ]
        return JSONResponse({"task_state_store": entries, "total_entries": len(entries)})

    async def order(self, request: Request) -> Response:
        if self.world.refused:
            return JSONResponse({"detail": "Forbidden"}, self.world.refused)
        index = int(request.query_params["map_index"])
        self.world.orders.append((index, (await request.json())["value"]))
        return Response(status_code=204)

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        """A file of the page."""
        lost = scope["path"].rpartition("/")[2] in self.world.lost
        app = Response(status_code=502) if lost else self._page
        await app(scope, receive, send)

    async def outer(self, request: Request) -> Response:
        """Airflow's own page around the tab, with its theme."""
        theme = request.query_params["theme"]
        return HTMLResponse(_OUTER.format(theme=theme, source=self.world.address()))


@contextmanager
def served() -> Iterator[World]:
    """The server, for as long as the context lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    world = World(f"http://127.0.0.1:{listener.getsockname()[1]}")
    answers = _Answers(world)
    app = Starlette(
        routes=[
            Mount("/base/elastic-launch", answers.page),
            Route("/base/outer.html", answers.outer),
            Route(_TASK, answers.instances),
            Route(f"{_TASK}/{{task}}/state-store", answers.store),
            Route(f"{_TASK}/{{task}}/state-store/control", answers.order, methods=["PUT"]),
        ]
    )
    config = uvicorn.Config(app, log_level="error", lifespan="off", loop="asyncio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))  # it closes it
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield world
    finally:
        server.should_exit = True
        thread.join()
