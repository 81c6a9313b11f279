"""Exit statuses in words."""

from __future__ import annotations

import signal

import pytest

from llutil.system.exit_status import exit_text


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (255, "exit code 255"),
        (-11, "signal 11 (SIGSEGV: a memory fault in native code)"),
        (-signal.SIGUSR1, f"signal {int(signal.SIGUSR1)} (SIGUSR1)"),
        (-200, "signal 200"),
    ],
)
def test_a_status_is_put_into_words(status: int, text: str) -> None:
    assert exit_text(status) == text


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_every_signal_has_words(number: int) -> None:
    assert exit_text(-number).startswith(f"signal {int(number)}")
