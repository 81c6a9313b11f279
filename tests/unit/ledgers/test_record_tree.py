"""The tree of a store's records: against a plain dictionary, and empty when nothing is in it."""

from __future__ import annotations

import random

import pytest

from llutil.ledgers.protocol import Record
from llutil.ledgers.record_tree import RecordTree, folder_of

_PATHS = [
    f"/{namespace}/-/{key}"
    for namespace in ("a", "a/b", "ab")
    for key in ("m", "m/1", "m/2", "m/1/x", "m/1/y", "m/1/x/deep", "n/1")
]


@pytest.mark.parametrize(("path", "folder"), [("/a/-/b", "/a/-/"), ("/a/-/", "/a/"), ("/a/", "/")])
def test_a_record_and_a_folder_are_in_a_folder(path: str, folder: str) -> None:
    assert folder_of(path) == folder


@pytest.mark.parametrize("seed", range(20))
def test_it_holds_what_was_added_and_not_removed(seed: int) -> None:
    rng = random.Random(seed)
    tree = RecordTree()
    plain: dict[str, Record] = {}
    for revision in range(200):
        path = rng.choice(_PATHS)
        if path in plain:
            assert tree.remove(path) == plain.pop(path)
        else:
            plain[path] = Record(path, b"", revision)
            tree.add(path, plain[path])
        assert tree.get(path) == plain.get(path)
        folder = rng.choice([folder_of(path), folder_of(folder_of(path)), "/a/", "/"])
        directly = [one for at, one in plain.items() if folder_of(at) == folder]
        assert list(tree.directly_in(folder)) == directly
        assert sorted(tree.below(folder)) == sorted(at for at in plain if at.startswith(folder))


def test_a_tree_without_records_keeps_no_folders() -> None:
    tree = RecordTree()
    for path in _PATHS:
        tree.add(path, Record(path, b"", 1))
    for path in _PATHS:
        tree.remove(path)
    assert vars(tree) == vars(RecordTree())
