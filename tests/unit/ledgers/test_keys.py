"""Keys, scopes and namespaces."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llutil.errors import ConfigError
from llutil.ledgers.keys import Namespace, check_folder, check_key, check_scope, holds

_WORDS = st.text("ab.-é %", min_size=1, max_size=3).filter(
    lambda word: word not in {".", "..", "-"}
)
_PATHS = st.lists(_WORDS, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("scope", "key", "inside"),
    [
        ("a/", "a/b", True),
        ("a/", "a/b/c", False),
        ("a/", "a", False),
        ("a/", "ab/c", False),
        ("a/b", "a/b", True),
        ("a/b", "a/bc", False),
        ("a/b", "a/b/c", False),
    ],
)
def test_a_scope_is_one_key_or_the_keys_directly_in_a_folder(
    scope: str, key: str, *, inside: bool
) -> None:
    assert holds(scope, key) is inside


@settings(derandomize=True, max_examples=50)
@given(_PATHS)
def test_words_joined_by_slashes_are_keys_and_with_a_slash_folders(path: str) -> None:
    assert check_key(path) == check_scope(path) == path
    assert check_folder(path + "/") == check_scope(path + "/") == path + "/"


@pytest.mark.parametrize("path", ["", "/a", "a//b", ".", "a/..", "a/-", "\x00", "a/\n"])
def test_other_keys_are_refused_by_name(path: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_key(path)
    assert repr(path) in str(raised.value)


def test_a_folder_without_a_slash_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not end in '/'"):
        check_folder("members")


@settings(derandomize=True, max_examples=50)
@given(_PATHS, _PATHS, _PATHS, _PATHS)
def test_no_two_namespaces_share_a_path(one: str, two: str, key: str, other: str) -> None:
    assume(one != two)
    assert Namespace(one).outside(key) != Namespace(two).outside(other)
    assert not Namespace(one).outside(key).startswith(Namespace(two).prefix)


@settings(derandomize=True, max_examples=50)
@given(_PATHS, _PATHS)
def test_inside_is_the_inverse_of_outside(path: str, key: str) -> None:
    namespace = Namespace(path)
    assert namespace.inside(namespace.outside(key)) == key


@pytest.mark.parametrize("path", ["team/prod", "/team/prod", "/team/prod/"])
def test_slashes_around_a_namespace_mean_nothing(path: str) -> None:
    assert Namespace(path).prefix == "/team/prod/-/"


@pytest.mark.parametrize("path", ["", "/", "a//b", "a/-/b", ".."])
def test_a_namespace_that_is_not_words_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        Namespace(path)
