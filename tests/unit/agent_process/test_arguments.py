"""The agent process refuses arguments that are none of the operator's."""

from __future__ import annotations

import os

import pytest

from llutil.agent_process.main import main

WHOLE = ["--socket", "3", "--stdout-reader", "4", "--stderr-reader", "5"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        WHOLE[:4],
        WHOLE[2:],
        [*WHOLE, "train.py"],
        ["--socket", "three", *WHOLE[2:]],
    ],
    ids=["none", "no stderr", "no socket", "a script", "a word for a number"],
)
def test_arguments_that_do_not_fit_are_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(argv)
    assert refused.value.code == 2
    assert "usage: python -m llutil" in capsys.readouterr().err


def test_help_sends_a_human_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "The operator starts it; to launch a job from a program" in " ".join(
        capsys.readouterr().out.split()
    )


def test_descriptors_that_are_not_open_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.close(nowhere)
    argv = [str(nowhere) if word in {"3", "4", "5"} else word for word in WHOLE]
    with pytest.raises(SystemExit) as refused:
        main(argv)
    assert refused.value.code == 2
    assert "not an open" in capsys.readouterr().err
