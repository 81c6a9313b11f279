"""Which znode a key has: every key has its own, and its name leads back to the key."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import Record
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths, session_name

_PATHS = ZnodePaths(Namespace("a/b"))
_WORDS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=8
).filter(lambda word: word not in {".", "..", "-"})
_KEYS = st.lists(_WORDS, min_size=1, max_size=4).map("/".join)


@settings(derandomize=True)
@given(key=_KEYS, session=st.integers(-(2**63), 2**63 - 1), sequence=st.integers(0, 10**9))
def test_the_name_of_a_records_znode_tells_its_key_session_and_sequence(
    key: str, session: int, sequence: int
) -> None:
    name = session_name(session)
    folder = _PATHS.parent(key)
    leased = _PATHS.leased_record(key)
    session_record = _PATHS.record(Record(key, b"", sequence, name))
    assert session_record == f"{_PATHS.session_record_prefix(key, name)}{sequence:010}"
    found = [
        _PATHS.record_znode(folder, path.rpartition("/")[2]) for path in (leased, session_record)
    ]
    assert [one and (one.path, one.key) for one in found] == [(leased, key), (session_record, key)]
    assert found[1] is not None
    assert (found[1].session, found[1].sequence) == (name, sequence)


@settings(derandomize=True)
@given(one=_KEYS, other=_KEYS)
def test_no_two_keys_or_folders_share_a_znode(one: str, other: str) -> None:
    folder = _PATHS.folder(one + "/")
    assert _PATHS.leased_record(other) != folder
    assert (_PATHS.leased_record(one) == _PATHS.leased_record(other)) == (one == other)
    assert (folder == _PATHS.folder(other + "/")) == (one == other)


@settings(derandomize=True)
@given(key=_KEYS)
def test_the_name_of_a_folders_znode_tells_the_folder(key: str) -> None:
    path = _PATHS.folder(key + "/")
    parent = _PATHS.parent(key)
    assert _PATHS.subfolder(parent, path.rpartition("/")[2]) == key + "/"
    assert _PATHS.record_znode(parent, path.rpartition("/")[2]) is None


def test_of_two_sessions_with_one_key_the_older_record_counts() -> None:
    names = [f"@a:{session_name(7)}:0000000002", f"@a:{session_name(8)}.0:0000000001", "note"]
    (znode,) = _PATHS.record_znodes("members/", names)
    assert (znode.key, znode.session) == ("members/a", f"{session_name(8)}.0")
