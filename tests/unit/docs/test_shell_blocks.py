"""Commands in README and docs are those that there are: of ``llutil``, ``make`` and the tests."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from llutil.command_line.main import parser
from llutil.command_line.own_options import OF_TORCHRUN, option_of, own_fields
from tests.unit.docs.blocks import PAGES, ROOT, blocks

_COMMAND = re.compile(r"^(?:\$ )?((?:llutil|make|torchrun|python) .*)$")
_OTHERS = {"--grace-period", "--rdzv-conf", "--rdzv-endpoint", "--rdzv-backend", "--rdzv-id"}


def _commands() -> list[tuple[str, str]]:
    found = []
    for block in blocks():
        if block.language == "":
            text = block.text.replace("\\\n", " ")
            found += [
                (str(block), match[1])
                for line in text.splitlines()
                if (match := _COMMAND.match(line))
            ]
    return found


COMMANDS = _commands()
_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _options_of_run() -> set[str]:
    """Ours, and torchrun's own as a page may name them: with one word for each."""
    torchs = {f"--{name.replace('_', '-')}" for name in OF_TORCHRUN.values()}
    return torchs | {option_of(name) for name in own_fields()} | _OTHERS


def test_there_are_commands() -> None:
    assert {command.split()[0] for _, command in COMMANDS} >= {"llutil", "make", "torchrun"}


@pytest.mark.parametrize(("place", "command"), COMMANDS)
def test_a_command_of_a_page_is_one_that_there_is(place: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    match words:
        case ["make", target]:
            assert target in _TARGETS
        case ["python", "-m", module, *_] if module.startswith("tests"):
            assert (
                Path(ROOT, *module.split(".")).with_suffix(".py").exists()
                or Path(ROOT, *module.split("."), "__main__.py").exists()
            )
        case ["llutil", "run", *rest] | ["torchrun", *rest]:
            options = {word.partition("=")[0] for word in rest[: _script(rest)]}
            assert {word for word in options if word.startswith("--")} <= _options_of_run()
        case ["llutil", *rest]:
            parser(runs=False).parse_args(rest)
        case _:
            pass  # a program that is not ours


def _script(words: list[str]) -> int:
    """Where the script's own arguments begin."""
    return next((n for n, word in enumerate(words) if word.endswith(".py")), len(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_target_that_a_text_names_is_there(page: Path) -> None:
    named = re.findall(r"`make(?:\n| )([\w-]+)`", page.read_text())
    assert set(named) <= _TARGETS


@pytest.mark.parametrize("block", [one for one in blocks() if one.language == "json"], ids=str)
def test_json_is_json(block) -> None:
    json.loads(block.text)


def test_no_block_has_another_language() -> None:
    assert {one.language for one in blocks()} <= {"", "ini", "json", "python"}
