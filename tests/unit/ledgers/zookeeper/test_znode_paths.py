"""Which node of ZooKeeper a key is: each has one of its own, and what is read back is what was
meant.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import Record
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths, session_name

_PLACES = ZnodePaths(Namespace("a/b"))
_WORDS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=8
).filter(lambda word: word not in {".", "..", "-"})
_KEYS = st.lists(_WORDS, min_size=1, max_size=4).map("/".join)


@settings(derandomize=True)
@given(key=_KEYS, session=st.integers(-(2**63), 2**63 - 1), sequence=st.integers(0, 10**9))
def test_a_records_node_tells_its_key_session_and_place(
    key: str, session: int, sequence: int
) -> None:
    name = f"{session_name(session)}.0"
    folder = _PLACES.parent(key)
    plain = _PLACES.plain(key)
    leased = _PLACES.path(Record(key, b"", sequence, name))
    assert leased == f"{_PLACES.stem(key, name)}{sequence:010}"
    found = [_PLACES.node(folder, path.rpartition("/")[2]) for path in (plain, leased)]
    assert [one and (one.path, one.key) for one in found] == [(plain, key), (leased, key)]
    assert found[1] is not None
    assert (found[1].session, found[1].sequence) == (name, sequence)


@settings(derandomize=True)
@given(one=_KEYS, other=_KEYS)
def test_no_two_places_are_the_same(one: str, other: str) -> None:
    folder = _PLACES.folder(one + "/")
    assert _PLACES.plain(other) != folder
    assert (_PLACES.plain(one) == _PLACES.plain(other)) == (one == other)
    assert (folder == _PLACES.folder(other + "/")) == (one == other)


@settings(derandomize=True)
@given(key=_KEYS)
def test_a_folders_node_tells_its_folder(key: str) -> None:
    path = _PLACES.folder(key + "/")
    parent = _PLACES.parent(key)
    assert _PLACES.subfolder(parent, path.rpartition("/")[2]) == key + "/"
    assert _PLACES.node(parent, path.rpartition("/")[2]) is None


def test_of_two_sessions_with_one_key_the_older_record_counts() -> None:
    names = [f"@a:{session_name(7)}.0:0000000002", f"@a:{session_name(8)}.0:0000000001", "note"]
    (node,) = _PLACES.nodes("members/", names)
    assert (node.key, node.session) == ("members/a", f"{session_name(8)}.0")
