"""What others write into the run's places fills no log, and its values are not shown."""

from __future__ import annotations

import pytest

from llutil.ledgers.protocol import Record, View
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol.record_codec import encode
from tests.support.memory_rendezvous import RUN
from tests.support.rendezvous_values import member


def _view(*keys: str, value: bytes = b"{", created: int = 1) -> View:
    return View(tuple(Record(key, value, created=created, lease="x") for key in keys), created)


def test_a_key_that_is_written_again_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = RecordReader(RUN)
    for created in range(3):
        reader.read_members(_view(RUN.members + "x", created=created))
    assert len(caplog.messages) == 1


def test_twenty_keys_are_named_and_the_last_line_says_that_it_is_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = RecordReader(RUN)
    reader.read_members(_view(*(f"{RUN.members}x{number}" for number in range(50))))
    assert len(caplog.messages) == 20
    assert ["further ones are not named" in line for line in caplog.messages] == [False] * 19 + [
        True
    ]


@pytest.mark.parametrize(
    "value",
    [
        b'{"version":2,"kind":"%s"}' % (b"k" * 5000),
        encode(member("k" * 5000)),
        b'{"version":%s}' % (b"9" * 4000),
    ],
    ids=["a long kind", "a long place", "a long version"],
)
def test_long_keys_and_values_make_no_long_line(
    caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    RecordReader(RUN).read_members(_view(RUN.members + "x" * 5000, value=value))
    (line,) = caplog.messages
    assert len(line) < 600


def test_a_value_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    RecordReader(RUN).read_members(_view(RUN.members + "x", value=b"password=tiger"))
    (line,) = caplog.messages
    assert "tiger" not in line
