"""A job's secrets go beside its spec, and are in it again at the agent."""

from __future__ import annotations

import os

import pytest

from llutil.entrypoint import Command
from llutil.errors import ConfigError
from llutil.launcher.config import LaunchConfig
from llutil.task_link.decoder import Decoder
from llutil.task_link.messages import Spec, encode
from llutil.task_link.secrets_file import open_secrets, take_secrets, without_secrets

OPTIONS = {"user": "ann", "password": "hidden-wörd", "timeout": 7.0, "secret": "hidden-secret"}


def spec() -> Spec:
    config = LaunchConfig(1, 1, 1, rdzv_configs=OPTIONS, run_id="x")
    return Spec(config=config, entrypoint=Command("x"), result_limit=1, orphan_log="")


def test_what_is_sent_has_no_secret_and_the_agent_has_all() -> None:
    shown, secrets = without_secrets(spec())
    line = encode(shown)
    assert b"hidden" not in line
    (received,) = Decoder().feed(line)
    assert isinstance(received, Spec)
    fd = open_secrets(secrets)
    config = take_secrets(received.config, fd)
    assert config == spec().config
    assert "hidden" not in repr((received, config))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_spec_does_not_show_its_secrets_nor_change_in_being_sent() -> None:
    assert "hidden" not in repr(spec())
    (received,) = Decoder().feed(encode(spec()))
    assert received == spec()
    assert "hidden" not in repr(received)


@pytest.mark.parametrize("cut", [2, 40])
def test_an_error_about_a_damaged_spec_does_not_show_its_secrets(cut: int) -> None:
    with pytest.raises(ConfigError) as raised:
        list(Decoder().feed(encode(spec())[:-cut] + b"\n"))
    assert "hidden" not in str(raised.value)
