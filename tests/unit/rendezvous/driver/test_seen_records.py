"""A record is read once for as long as views show it."""

from __future__ import annotations

from llutil.ledgers.protocol import Record
from llutil.rendezvous.driver.seen_records import SeenRecords


class Reader:
    """Reads the last word of keys; one that begins with ``x`` means nothing."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.seen = SeenRecords(self._read)

    def _read(self, record: Record) -> str | None:
        self.read.append(record.key)
        return None if record.key.startswith("x") else record.key

    def shows(self, *records: Record) -> str:
        return "".join(self.seen.of(records))


def records(keys: str, created: int = 1) -> list[Record]:
    return [Record(key, b"", created) for key in keys]


def test_what_comes_and_goes_is_in_the_views_order_and_nothing_is_read_twice() -> None:
    reader, (a, b, x, c, d) = Reader(), records("abxcd")
    assert reader.shows() == ""
    assert reader.shows(a, b) == "ab"
    assert reader.shows(a, b, x, c) == "abc"
    assert reader.shows(a, x, c) == "ac"
    assert reader.shows(x, c, d) == "cd"
    assert reader.shows(d, x, c) == "dc"
    assert reader.shows() == ""
    assert reader.shows(a, d) == "ad"
    assert reader.read == ["a", "b", "x", "c", "d"]


def test_a_record_that_a_read_found_again_is_known_by_its_key_and_creation() -> None:
    reader = Reader()
    assert reader.shows(*records("abx")) == "ab"
    assert reader.shows(*records("bax")) == "ba"
    assert reader.read == ["a", "b", "x"]
    assert reader.shows(*records("ab", created=2)) == "ab"
    assert reader.read == ["a", "b", "x", "a", "b"]


def test_what_is_gone_for_long_is_forgotten() -> None:
    reader = Reader()
    for created in range(1000):
        reader.shows(*records("abx", created))
    assert len(reader.seen._by_version) < 200
