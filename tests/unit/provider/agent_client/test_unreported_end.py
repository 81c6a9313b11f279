"""What a task says of an agent that ended without a word."""

from __future__ import annotations

import signal

import pytest

from airflow_provider.agent_client.unreported_end import UnreportedEnd
from llutil.errors import AgentLostError, ConfigError, StoppedError
from llutil.system.exit_status import EXIT_UNKNOWN


def error_of(exit_code, **fields):
    plain = {
        "pid": 7,
        "python": "/p",
        "said_hello": False,
        "stop_reason": None,
        "killed_because": None,
        "last_errors": ["the last line"],
    }
    return UnreportedEnd(exit_code=exit_code, **plain | fields).error()


@pytest.mark.parametrize(
    ("exit_code", "fields", "kind"),
    [
        (1, {}, ConfigError),
        (0, {}, ConfigError),
        (-signal.SIGKILL, {}, AgentLostError),
        (EXIT_UNKNOWN, {}, AgentLostError),
        (1, {"said_hello": True}, AgentLostError),
        (1, {"killed_because": "it still runs"}, AgentLostError),
        (1, {"stop_reason": "a stop"}, StoppedError),
    ],
)
def test_only_an_interpreter_that_exits_by_itself_at_once_is_a_wrong_one(exit_code, fields, kind):
    error = error_of(exit_code, **fields)
    assert type(error) is kind
    assert kind is StoppedError or "the last line" in str(error)
