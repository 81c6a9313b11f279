"""What a string means as an entrypoint, and that every entrypoint survives its way through JSON."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil import entrypoint
from llutil.entrypoint import Command, Entrypoint, FunctionName, Module, PickledCall, Script
from llutil.errors import EntrypointError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORDS = st.tuples() | st.lists(TEXT).map(tuple)
ANY = st.one_of(
    st.builds(PickledCall, TEXT, st.binary()),
    st.builds(FunctionName, TEXT, st.binary()),
    st.builds(Script, TEXT, WORDS),
    st.builds(Module, TEXT, WORDS),
    st.builds(Command, TEXT, WORDS),
)


@pytest.mark.parametrize(
    ("text", "args", "wanted"),
    [
        ("pkg.mod:main", (), FunctionName("pkg.mod:main", b"")),
        ("mod:Class.method", (), FunctionName("mod:Class.method", b"")),
        ("  mod:main ", (), FunctionName("mod:main", b"")),
        ("train.py", (), Script("train.py")),
        ("path with spaces/train.py", ("--lr", 0.1), Script("path with spaces/train.py", ("--lr", "0.1"))),
        ("/a/b.py", (Path("/data"),), Script("/a/b.py", ("/data",))),
        ("-m pkg.train", ("--epochs", 3), Module("pkg.train", ("--epochs", "3"))),
        ("-m pkg.train --epochs", (3,), Module("pkg.train", ("--epochs", "3"))),
        ("-m", ("pkg.train", "--epochs"), Module("pkg.train", ("--epochs",))),
        ("-m pkg.train --name 'a b'", (), Module("pkg.train", ("--name", "a b"))),
        ("train.py --lr 1", (2,), Script("train.py", ("--lr", "1", "2"))),
        ("-m pkg.train conf/a.py", (), Module("pkg.train", ("conf/a.py",))),
        ("train.py config.py", (), Script("train.py", ("config.py",))),
        ("'my folder/train.py' --lr", (), Script("my folder/train.py", ("--lr",))),
        ("bash -c 'echo a'", (), Command("bash", ("-c", "echo a"))),
        ("bash", ("-c", "true"), Command("bash", ("-c", "true"))),
        ("/usr/bin/env", (), Command("/usr/bin/env")),
        ("http://host:80", (), Command("http://host:80")),
        ("mod:", (), Command("mod:")),
        ("my-pkg.mod:main", (), Command("my-pkg.mod:main")),
        ("-mine", (), Command("-mine")),
    ],
)  # fmt: skip
def test_the_form_of_a_string_says_what_it_runs(
    text: str, args: tuple[Any, ...], wanted: object
) -> None:
    assert entrypoint.parse(text, args) == wanted


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_string_is_refused_with_what_was_wanted(text: str) -> None:
    with pytest.raises(
        EntrypointError, match=r"empty string; wanted a function, 'package\.module:f"
    ):
        entrypoint.parse(text, ())


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("train.py 'a", (), "No closing quotation; give the arguments apart"),
        ("echo", ("a\0b",), "'echo' holds a NUL character, which no program can be given"),
    ],
)
def test_what_cannot_be_an_argument_is_refused(text: str, args: tuple[Any, ...], said: str) -> None:
    with pytest.raises(EntrypointError, match=said):
        entrypoint.parse(text, args)


async def _async() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


class _AsyncCall:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (_async, "an async function"),
        (functools.partial(functools.partial(_async)), "an async function"),
        (_AsyncCall(), "an async function"),
        (_AsyncCall().__call__, "an async function"),
        (_async_generator, "an async generator"),
        (_generator, "a generator"),
    ],
)
def test_a_function_whose_call_runs_nothing_is_refused(function: object, kind: str) -> None:
    assert str(entrypoint.function_problem(function)).startswith(f"is {kind}, of which a call")


@pytest.mark.parametrize("function", [len, print, Path, lambda: 1, functools.partial(len, "a")])
def test_any_other_function_is_taken(function: object) -> None:
    assert entrypoint.function_problem(function) is None


@pytest.mark.parametrize("text", ["-m", "-m   "])
def test_a_module_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(EntrypointError, match="'-m' without a module"):
        entrypoint.parse(text, ())


@settings(derandomize=True, max_examples=15, deadline=None)
@given(one=ANY)
def test_an_entrypoint_survives_json(one: entrypoint.Entrypoint) -> None:
    body = json.loads(json.dumps(msgspec.to_builtins(one)))
    assert msgspec.convert(body, type=Entrypoint) == one


@pytest.mark.parametrize("value", [{}, {"kind": "spell"}, {"kind": "script", "args": []}])
def test_an_entrypoint_of_another_version_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, type=Entrypoint)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (PickledCall("train", b""), "train"),
        (FunctionName("pkg.mod:main", b""), "pkg.mod:main"),
        (Script("a/train.py"), "a/train.py"),
        (Module("pkg.train"), "-m pkg.train"),
        (Command("bash", ("-c",)), "bash"),
    ],
)
def test_each_entrypoint_has_a_name_for_reports(one: entrypoint.Entrypoint, name: str) -> None:
    assert one.name == name


def test_what_is_missing_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "tool").touch(mode=0o755)
    (tmp_path / "data").touch(mode=0o644)
    cwd = str(tmp_path)
    assert entrypoint.problem_with(Script("train.py"), cwd) is None
    assert entrypoint.problem_with(Script(str(tmp_path / "train.py")), "/") is None
    assert entrypoint.problem_with(Command("./tool"), cwd) is None
    assert entrypoint.problem_with(Command("tool"), cwd) == (
        "command 'tool' is not on the PATH; write './tool' for the file"
    )
    assert "may not be executed: make the file executable (chmod +x), or name its interp" in str(
        entrypoint.problem_with(Command("./data"), cwd)
    )
    assert "does not exist (looked for" in str(entrypoint.problem_with(Command("./none"), cwd))
    assert entrypoint.problem_with(Command("sh"), cwd) is None
    assert entrypoint.problem_with(Command(sys.executable), cwd) is None
    assert entrypoint.problem_with(Module("not.looked.for"), cwd) is None
    assert entrypoint.problem_with(FunctionName("not.looked:for", b""), cwd) is None
    missing = entrypoint.problem_with(Script("absent.py"), cwd)
    assert missing == f"script 'absent.py' does not exist (looked for {tmp_path / 'absent.py'})"
    assert entrypoint.problem_with(Script("."), cwd) is not None
    spaced = entrypoint.problem_with(Script("python train.py"), cwd)
    assert "if it is a command, give 'python' and its arguments apart: ['train.py']" in str(spaced)
    unknown = entrypoint.problem_with(Command("no-such-command-anywhere"), cwd)
    assert unknown == "command 'no-such-command-anywhere' is neither on the PATH nor a file"
