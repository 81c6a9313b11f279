"""A node is refused only by a run of another version, and never by a stray record."""

from __future__ import annotations

import pytest

from llutil.rendezvous.driver.version_check import VersionCheck
from llutil.rendezvous.protocol.record_codec import ForeignRecord
from llutil.rendezvous.protocol.records import Record
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import member, round_of

_OURS = member("a")
_GARBAGE = ForeignRecord("key", "is no JSON record of this package")
_NEWER = ForeignRecord("key", "has format 3, and this node reads format 2 only", 3)
_LOG = round_of("a")

_Seen = Record | ForeignRecord | None


def _refused(check: VersionCheck, newest: _Seen, *older: _Seen) -> bool:
    """Whether a node is refused that joins behind these members, oldest first."""
    names = [str(number) for number in range(len(older))]
    try:
        check.joined("n", names, newest)
        for name, record in reversed([*zip(names, older, strict=True)]):
            if check.saw(name, record):
                break  # its predecessor; nothing else is looked at while that lives
    except ForeignRecord as foreign:
        return foreign is _NEWER
    return False


@pytest.mark.parametrize("newest", [None, _LOG, _NEWER, _GARBAGE])
@pytest.mark.parametrize(
    "older",
    [
        (_OURS,),
        (_OURS, _NEWER),
        (_NEWER, _OURS),
        (_OURS, _GARBAGE, _NEWER, None),
    ],
)
def test_who_finds_a_member_of_its_own_version_is_not_refused(
    newest: _Seen, older: tuple[_Seen, ...]
) -> None:
    assert not _refused(VersionCheck(), newest, *older)


@pytest.mark.parametrize(
    ("newest", "older"),
    [
        (None, (_NEWER,)),
        (_LOG, (_NEWER,)),
        (_LOG, (None, _GARBAGE, _NEWER, None)),
        (_NEWER, ()),
        (_NEWER, (None,)),
        (_NEWER, (_GARBAGE,)),
    ],
)
def test_who_is_new_and_finds_only_another_version_is_refused(
    newest: _Seen, older: tuple[_Seen, ...]
) -> None:
    assert _refused(VersionCheck(), newest, *older)


@pytest.mark.parametrize("newest", [None, _LOG, _GARBAGE])
@pytest.mark.parametrize("older", [(), (None,), (_GARBAGE,), (None, _GARBAGE)])
def test_what_is_of_no_version_refuses_nobody(newest: _Seen, older: tuple[_Seen, ...]) -> None:
    assert not _refused(VersionCheck(), newest, *older)


def test_who_was_in_the_run_before_is_not_refused_for_what_came_into_its_log() -> None:
    check = VersionCheck()
    assert not _refused(check, _LOG)
    assert not _refused(check, _NEWER)
    assert not _refused(check, _NEWER, None)


def test_who_comes_back_behind_members_of_another_version_is_refused() -> None:
    check = VersionCheck()
    assert not _refused(check, _LOG)
    assert _refused(check, _LOG, _NEWER)


def test_who_was_accepted_leads_though_a_stray_member_is_older() -> None:
    check = VersionCheck()
    check.joined("n", ["stray", "a"], None)
    assert check.saw("a", _OURS)
    assert not check.saw("a", None)
    assert not check.saw("stray", _NEWER)


def test_who_was_given_a_seat_is_not_refused_when_all_who_were_there_before_have_gone() -> None:
    check = VersionCheck()
    check.joined("b.1", ["a.1"], _NEWER)
    check.saw_log(RunHistory().with_records((round_of("ac"),)))
    with pytest.raises(ForeignRecord):
        check.saw("a.1", None)
    check.joined("b.1", ["a.1"], _NEWER)
    check.saw_log(RunHistory().with_records((round_of("ab"),)))
    assert not check.saw("a.1", None)
