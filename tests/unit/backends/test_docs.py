"""What README.md and docs/ say of backends and their options is what the table has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from llutil.backends.backend import Backend
from llutil.backends.options import Option
from llutil.backends.table import BACKENDS, DEPLOYMENT_OPTIONS, backend_of_connection

ROOT = Path(__file__).parents[3]
LEDGERS = [backend for backend in BACKENDS.values() if backend.has_ledger]
TORCHS = [backend for backend in BACKENDS.values() if not backend.has_ledger]


def code(text: str) -> str:
    return f"`{text}`" if text else "none"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def endpoint(backend: Backend) -> str:
    more = "[,host:port...]" if backend.several_servers else ""
    return f"host:port{more}{'[/chroot]' if backend.chroot else ''}"


def table_of_backends() -> list[str]:
    head = (
        "| `rdzv_backend` | nodes meet through | `rdzv_endpoint` | in torchrun | connection type |"
    )
    return [
        head,
        "|---|---|---|---|---|",
        *(
            row(
                code(one.name),
                one.title,
                code(endpoint(one)),
                code(one.torchrun_name),
                code(one.connection_type),
            )
            for one in BACKENDS.values()
        ),
    ]


def default(option: Option) -> str:
    if option.default is None:
        return "none"
    return code(option.default) if isinstance(option.default, str) else f"{option.default:g}"


def table_of_options(backends: Iterable[Backend]) -> list[str]:
    known: dict[Option, list[str]] = {}
    for backend in backends:
        for option in backend.options:
            known.setdefault(option, []).append(code(backend.name))
    return [
        "| `rdzv_configs` | default | of | |",
        "|---|---|---|---|",
        *(
            row(code(option.key), default(option), ", ".join(names), option.text)
            for option, names in known.items()
        ),
    ]


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("README.md", table_of_backends()),
        ("README.md", table_of_options(LEDGERS)),
        ("docs/rendezvous.md", table_of_options(TORCHS)),
        (
            "docs/gangs.md",
            [row(code(one.key), default(one), one.text) for one in DEPLOYMENT_OPTIONS.values()],
        ),
    ],
)
def test_a_page_has_the_table(page: str, table: list[str]) -> None:
    assert "\n".join(table) in (ROOT / page).read_text()


def test_the_connections_in_the_docs_show_all_that_one_may_have() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs/gangs.md").read_text(), re.DOTALL)
    shown = [json.loads(block) for block in blocks]
    assert {one["conn_type"] for one in shown} == {
        one.connection_type for one in BACKENDS.values() if one.connection_type
    }
    for one in shown:
        backend = backend_of_connection(one["conn_type"])
        assert backend is not None
        assert one["extra"].keys() == {option.key for option in backend.connection_options}
