"""What a worker runs, as a value: a function, a script, a module or any command.

``parse`` turns what a caller wrote into one of these five values without importing or opening
anything; what a string means depends on its form alone:

====================================  =====================================================
``"package.module:function"``         a function, imported in the worker
``"path/to/train.py"``                a Python script; arguments follow as torchrun takes them
``"-m package.module"``               a module, as ``python -m`` runs it (also ``"-m"`` followed
                                      by the module's name as the first argument)
anything else                         a command: a path, or a name that is on the ``PATH``
====================================  =====================================================

Arguments may follow a script, a module or a command, in quotes as for a shell: ``"train.py --lr
1"``. A path with spaces is in quotes then; a script's alone needs none.

The values are msgspec's: messages and orders carry them, with payloads as base64 text. This module
may import nothing but the standard library, msgspec and ``llutil.errors``.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llutil.errors import EntrypointError

__all__ = [
    "Command",
    "Entrypoint",
    "FunctionName",
    "Module",
    "PickledCall",
    "Script",
    "function_problem",
    "parse",
    "problem_with",
]

_FUNCTION_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class PickledCall(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """A function with its arguments, pickled by ``llutil.serialization.functions``."""

    name: str
    payload: bytes


class FunctionName(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """A function named ``module:qualified.name``; ``payload`` holds its arguments."""

    target: str
    payload: bytes

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.target


class Script(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """A Python file and its arguments."""

    path: str
    args: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.path


class Module(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """A module run as ``python -m`` does, and its arguments."""

    module: str
    args: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"-m {self.module}"


class Command(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """A program and its arguments."""

    program: str
    args: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.program


Entrypoint = PickledCall | FunctionName | Script | Module | Command


def parse(text: str, args: Sequence[Any]) -> FunctionName | Script | Module | Command:
    """The entrypoint that ``text`` names, with ``args`` as strings (a ``FunctionName`` gets no
    payload).

    :raises EntrypointError: ``text`` is blank, names a module without saying which, or has a quote
        that does not end; or an argument holds a NUL character.
    """
    text = text.strip()
    if not text:
        raise EntrypointError(
            "entrypoint is an empty string; wanted a function, 'package.module:function', "
            "a script, '-m module' or a command"
        )
    if _FUNCTION_NAME.fullmatch(text):
        return FunctionName(text, b"")
    try:
        first, *words = shlex.split(text)
    except ValueError as error:
        raise EntrypointError(
            # Not the whole of it: an argument may be a secret.
            f"entrypoint begins with {text.split()[0]!r}: {error}; give the arguments apart, as "
            "op_args or args"
        ) from error
    if text.endswith(".py") and first != "-m" and not first.endswith(".py"):
        first, words = text, []  # a path with spaces
    words += [str(arg) for arg in args]
    if any("\0" in word for word in (first, *words)):
        raise EntrypointError(
            f"an argument of entrypoint {first!r} holds a NUL character, which no program can be "
            "given; leave it out"
        )
    if first == "-m":
        if not words:
            raise EntrypointError("entrypoint is '-m' without a module; wanted '-m package.module'")
        return Module(words[0], tuple(words[1:]))
    if first.endswith(".py"):
        return Script(first, tuple(words))
    return Command(first, tuple(words))


def function_problem(function: object) -> str | None:
    """Why a rank cannot run ``function``, or None if nothing is seen wrong: the value of a call
    would be a coroutine or a generator, of which nothing has run.
    """
    while isinstance(function, functools.partial):
        function = function.func
    kinds: dict[str, Callable[[Any], bool]] = {
        "an async function": inspect.iscoroutinefunction,
        "an async generator": inspect.isasyncgenfunction,
        "a generator": inspect.isgeneratorfunction,
    }
    code: tuple[Any, Any] = (function, getattr(type(function), "__call__", None))  # noqa: B004
    for kind, is_one in kinds.items():
        if any(map(is_one, code)):
            return (
                f"is {kind}, of which a call runs nothing; wanted a function that does the work, "
                "such as one that calls asyncio.run(...), or list(...) on the generator"
            )
    return None


def problem_with(entrypoint: Entrypoint, cwd: str) -> str | None:
    """Why ``entrypoint`` cannot be started from the folder ``cwd``, or None if nothing is seen
    wrong.
    """
    match entrypoint:
        case Script(path=path):
            file = Path(cwd, path)
            if not file.is_file():
                text = f"script {path!r} does not exist (looked for {file})"
                if " " in path:
                    program, *arguments = path.split()
                    text += (
                        f"; if it is a command, give {program!r} and its arguments apart: "
                        f"{arguments!r}"
                    )
                return text
        case Command(program=program):
            return _command_problem(program, cwd)
        case PickledCall() | FunctionName() | Module():
            pass  # only the worker's interpreter can tell
    return None


def _command_problem(program: str, cwd: str) -> str | None:
    if os.sep not in program:
        if shutil.which(program) is not None:
            return None
        if Path(cwd, program).is_file():
            return f"command {program!r} is not on the PATH; write './{program}' for the file"
        return f"command {program!r} is neither on the PATH nor a file"
    file = Path(cwd, program)
    if not file.is_file():
        return f"command {program!r} does not exist (looked for {file})"
    if not os.access(file, os.X_OK):
        return (
            f"command {program!r} may not be executed: make the file executable (chmod +x), or "
            f"name its interpreter, as in 'bash {program}'"
        )
    return None
