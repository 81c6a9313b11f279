"""Python blocks of README and docs compile, call what there is, and run where that is quick."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.unit.docs.blocks import ROOT, Block, blocks

PYTHON = [block for block in blocks() if block.language == "python"]

_HEAVY = ("llutil.integrations.", "llutil.launcher.data")
"""They import torch, and frameworks."""

_OF_AIRFLOW = ("@task", "ElasticLaunchOperator(", "ElasticLaunchOperator.gang(", "@dag")

NOT_RUN = {
    "launch_agent(LaunchConfig": "starts ranks; the tests of launch_agent do",
    "done = worker.resume()": "a part of a rank's loop; the tests of checkpoints run whole ones",
    "savers = dist.new_group": "a part of a rank's loop, with a process group",
    'fsspec.open(f"{folder}/train.pt"': "a part of a rank's loop",
    "sampler = ElasticSampler(": "a part of a rank's loop, with a data set",
    "trainer = Trainer(": "needs a Trainer; dags/ has whole examples, which tests run",
    "Accelerator(": "a part of a rank's loop",
    "fully_shard(model)": "a part of a rank's loop, with a sharded model",
    "deepspeed.initialize": "needs DeepSpeed",
    "SummaryWriter(": "needs TensorBoard",
    'torch.device("cuda"': "needs a GPU",
    "def test_my_training_survives": "a test; those of the plugin run such ones",
    "parser.add_argument": "the tutorial's script; its DAG is run with it",
}
"""What is compiled and looked at, but not run: a line of the block, and why."""


def _names() -> dict[str, Any]:
    """What blocks may use without an import."""
    from airflow.sdk import dag, task

    from airflow_provider.kubernetes import pod_override
    from airflow_provider.operators.elastic import ElasticLaunchOperator
    from llutil import worker
    from llutil.launcher import LaunchConfig
    from llutil.std import Std

    return {
        "ElasticLaunchOperator": ElasticLaunchOperator,
        "LaunchConfig": LaunchConfig,
        "Std": Std,
        "dag": dag,
        "pod_override": pod_override,
        "task": task,
        "worker": worker,
    }


def _of_airflow(block: Block) -> bool:
    return any(text in block.text for text in _OF_AIRFLOW)


def _why_not(block: Block) -> list[str]:
    return [why for text, why in NOT_RUN.items() if text in block.text]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_it_compiles_and_calls_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, str(block), "exec")
    assert list(_unknown(tree)) == []


@pytest.mark.parametrize("block", [one for one in PYTHON if _of_airflow(one)], ids=str)
def test_it_makes_tasks_in_a_dag(block: Block) -> None:
    from airflow.sdk import DAG

    names = _names() | {"__name__": "block", "__file__": "/dags/block.py"}
    with DAG("block", schedule=None) as dag:
        exec(compile(block.text, str(block), "exec"), names)
        for function in ast.parse(block.text).body:
            if isinstance(function, ast.FunctionDef) and function.decorator_list:
                arguments = [one for one in function.args.args if one.arg != "ti"]
                names[function.name](*[1 for _ in arguments])
    made = [one for one in names.values() if isinstance(one, DAG)]
    assert [task for one in (dag, *made) for task in one.task_ids] or "@dag" in block.text


@pytest.mark.parametrize(
    "block", [one for one in PYTHON if not _of_airflow(one) and not _why_not(one)], ids=str
)
def test_it_runs(block: Block) -> None:
    text = block.text.replace("LaunchConfig(...,", "LaunchConfig(1, 1, 1,")
    exec(compile(text, str(block), "exec"), _names() | {"__name__": "block"})


@pytest.mark.parametrize("text", NOT_RUN)
def test_what_is_not_run_is_there(text: str) -> None:
    assert [block for block in PYTHON if text in block.text and not _of_airflow(block)]


def _unknown(tree: ast.AST) -> Iterator[str]:
    """Names and keyword arguments of ours that a block uses and that there are not."""
    names = _names()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _ours(node.module):
            module = _module(str(node.module))
            for one in node.names:
                if not hasattr(module, one.name):
                    yield f"{node.module} has no {one.name}"
                names[one.asname or one.name] = getattr(module, one.name, None)
    from llutil.checkpoints.marker import Checkpoint
    from llutil.events.steps import Todo

    names |= {"todo": Todo, "done": Checkpoint}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            if owner is not None and not hasattr(owner, node.attr):
                yield f"{node.value.id} has no {node.attr}"
        if isinstance(node, ast.Call):
            yield from _wrong_keywords(node, names)


def _module(name: str) -> Any:
    """The module; if importing it takes seconds, one with empty classes that take the same."""
    if not name.startswith(_HEAVY):
        return import_module(name)
    declared = types.ModuleType(name)
    tree = ast.parse(Path(ROOT, *name.split(".")).with_suffix(".py").read_text())
    for one in tree.body:
        methods = one.body if isinstance(one, ast.ClassDef) else []
        for method in methods:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                made = f"def {one.name}({ast.unparse(_without_annotations(method.args))}): ..."
                exec(made, declared.__dict__)
                getattr(declared, one.name).__module__ = name
    return declared


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    for one in (*arguments.args, *arguments.kwonlyargs):
        one.annotation = None
    arguments.args = arguments.args[1:]
    arguments.defaults = arguments.defaults[: len(arguments.args)]
    return arguments


def _ours(module: str | None) -> bool:
    return (module or "").split(".")[0] in {"llutil", "airflow_provider"}


def _wrong_keywords(call: ast.Call, names: dict[str, Any]) -> Iterator[str]:
    given = {keyword.arg for keyword in call.keywords if keyword.arg}
    match ast.unparse(call.func):
        case "task.elastic":
            known = _operator_parameters() | {"gang", "min_nodes"}
        case "ElasticLaunchOperator":
            known = _operator_parameters()
        case "ElasticLaunchOperator.gang":
            known = _operator_parameters() | {"nodes", "min_nodes"}
        case text:
            owner, _, attribute = text.partition(".")
            called = names.get(owner)
            called = getattr(called, attribute, None) if attribute else called
            if not callable(called) or not _ours(getattr(called, "__module__", None)):
                return
            parameters = inspect.signature(called).parameters.values()
            if any(one.kind is one.VAR_KEYWORD for one in parameters):
                return
            known = {one.name for one in parameters}
    if given - known:
        yield f"{ast.unparse(call.func)} takes no {sorted(given - known)}"


def _operator_parameters() -> set[str]:
    from airflow.sdk import BaseOperator

    from airflow_provider.operators.elastic import ElasticLaunchOperator

    return {*inspect.signature(ElasticLaunchOperator).parameters} - {"kwargs"} | {
        *inspect.signature(BaseOperator).parameters
    }
