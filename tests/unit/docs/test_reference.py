"""The reference has everything that the code has: a new thing without its row makes a test red."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs._ext import code_tables, option_tables
from docs._ext.files import FILES, NO_FILES, STATE_KEYS, XCOMS
from docs._ext.from_code import MARKER, TABLES
from docs._ext.source import constants, trees
from llutil.events.events import Events, Flag
from tests.unit.docs.blocks import PAGES, ROOT

_MAKES_FILES = {
    "NamedTemporaryFile", "TemporaryFile", "memfd_create", "mkdir", "mkdtemp", "mkstemp", "touch",
    "write_bytes", "write_text",
}  # fmt: skip


def test_each_table_is_on_one_page() -> None:
    shown = [name for page in PAGES for name in MARKER.findall(page.read_text())]
    assert sorted(shown) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_each_row_of_a_table_is_whole(name: str) -> None:
    head, _, *rows = TABLES[name]().splitlines()
    assert rows
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert {len(row) for row in cells} == {head.count("|") - 1}
    assert not [row for row in cells if not all(cell.strip() for cell in row)]


def test_every_parameter_of_the_operator_is_told() -> None:
    from airflow_provider.operators.elastic import ElasticLaunchOperator

    table = TABLES["operator"]()
    known = set(inspect.signature(ElasticLaunchOperator).parameters) - {"kwargs"}
    by_gang = {"gang_nodes", "min_nodes"}
    assert not {name for name in known - by_gang if f"| `{name}` |" not in table}


def test_every_field_of_launch_config_is_told() -> None:
    from llutil.launcher.config import LaunchConfig

    table = TABLES["launch-config"]()
    assert not [
        one.name for one in dataclasses.fields(LaunchConfig) if f"| `{one.name}` |" not in table
    ]


def test_every_flag_is_told() -> None:
    with Events.private() as page:
        flags = {name for name, value in vars(page).items() if isinstance(value, Flag)}
    assert flags == set(re.findall(r"^\| `(\w+)`", TABLES["flags"](), re.MULTILINE))


def test_every_variable_of_ours_is_told() -> None:
    used = {
        node.value
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"LLUTIL_[A-Z_]*[A-Z]", node.value)
    }
    assert used == {name for name in option_tables.variables() if name.startswith("LLUTIL")}
    assert option_tables.undocumented_variables() == []


def test_every_error_says_what_to_do() -> None:
    found = code_tables.errors()
    assert len(found) > 25
    assert not [one.name for one in found if not code_tables.to_do(one)]


def _calls(module: str) -> Iterator[tuple[str, str]]:
    """The calls of a module's methods with a text as their first argument."""
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant | ast.JoinedStr):
                    yield called, ast.unparse(argument).strip("f").strip("'")


@pytest.mark.parametrize(
    ("table", "module", "calls"),
    [
        ("airflow-metrics", "airflow_provider/telemetry/job_metrics.py", "_count _time _send"),
        ("spans", "airflow_provider/telemetry/job_spans.py", "start_span _child"),
        ("torch-metrics", "llutil/agent/metrics.py", "_put"),
    ],
)
def test_every_metric_and_span_is_told(table: str, module: str, calls: str) -> None:
    sent = {text for called, text in _calls(module) if called in calls.split()}
    wanted = set()
    for text in sent:
        whats = ("launch", "rendezvous", "restart") if "{what}" in text else ("",)
        wanted |= {
            re.sub(r"\{+\}+", "<role>", text.replace("{what}", what)).strip() for what in whats
        }
    assert wanted == set(code_tables.metric_names(table))


def test_every_module_that_makes_files_is_told() -> None:
    makes = set()
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                text = ast.unparse(node)
                opens = name == "open" and re.search(r"O_CREAT|, '[wax]b?'|\('[wax]b?'", text)
                if name in _MAKES_FILES or opens:
                    makes.add(module)
    told = {one.module for one in FILES} | NO_FILES.keys()
    assert makes - told == set()
    assert not [name for name in told if name not in trees()]


def test_every_key_of_the_tasks_state_and_of_xcom_is_told() -> None:
    known = {one.name for one in constants() if one.module.startswith("airflow_provider/")}
    used: set[str] = set()
    for tree in (tree for name, tree in trees().items() if name.startswith("airflow_provider/")):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func).endswith("xcom_push"):
                used |= {ast.unparse(one.value) for one in node.keywords if one.arg == "key"}
            elif re.search(r"(store|accessor)\.(set|delete)$", ast.unparse(node.func)):
                used.add(ast.unparse(node.args[0]))
    assert {name for name in used if name in known} <= {name for _, name in (*STATE_KEYS, *XCOMS)}
    assert {name for name in used if name.isupper()} <= known


def test_every_record_of_the_ledger_has_its_key() -> None:
    told = TABLES["record-keys"]()
    source = Path(ROOT, "llutil/rendezvous/protocol/record_keys.py").read_text()
    written = set(re.findall(r"\.(assignment|verdict|marker|gate|decision)\b", source))
    assert written <= set(re.findall(r"\.(\w+?)(?:<n>)?`", told))
    for folder in ("members", "log", "reports", "answers"):
        assert f"/{folder}/" in told
