"""What a worker runs, as a value: a function, a script, a module or any command.

``parse`` turns what a caller wrote into one of these five values without importing or opening
anything; what a string means depends on its form alone:

====================================  =====================================================
``"package.module:function"``         a function, imported in the worker
``"path/to/train.py"``                a Python script; arguments follow as torchrun takes them
``"-m package.module"``               a module, as ``python -m`` runs it (also ``"-m"`` followed
                                      by the module's name as the first argument)
anything else                         a command, found on the ``PATH``
====================================  =====================================================

The values are msgspec's: messages and orders carry them, with payloads as base64 text. This module
may import nothing but the standard library, msgspec and ``llutil.errors``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
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
    "parse",
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

    :raises EntrypointError: ``text`` is blank, or names a module without saying which.
    """
    text = text.strip()
    if not text:
        raise EntrypointError(
            "entrypoint is an empty string; wanted a function, 'package.module:function', "
            "a script, '-m module' or a command"
        )
    if _FUNCTION_NAME.fullmatch(text):
        return FunctionName(text, b"")
    strings = tuple(str(arg) for arg in args)
    if text == "-m" or text.startswith("-m "):
        words = (*text.split()[1:], *strings)
        if not words:
            raise EntrypointError("entrypoint is '-m' without a module; wanted '-m package.module'")
        return Module(words[0], words[1:])
    if text.endswith(".py"):
        return Script(text, strings)
    return Command(text, strings)


def problem_with(entrypoint: Entrypoint, cwd: str) -> str | None:
    """Why ``entrypoint`` cannot be started from the folder ``cwd``, or None if nothing is seen
    wrong.
    """
    match entrypoint:
        case Script(path=path):
            file = Path(cwd, path)
            if not file.is_file():
                return f"script {path!r} does not exist (looked for {file})"
        case Command(program=program):
            if shutil.which(program, path=None) is None and not Path(cwd, program).is_file():
                return f"command {program!r} is neither on the PATH nor a file"
        case PickledCall() | FunctionName() | Module():
            pass  # only the worker's interpreter can tell
    return None
