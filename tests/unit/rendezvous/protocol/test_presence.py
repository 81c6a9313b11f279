"""Who is there, and how a text names them."""

from __future__ import annotations

from llutil.rendezvous.protocol.presence import Presence, named
from tests.support.rendezvous_values import member


def test_who_has_workers_of_an_earlier_round_is_ready_once_it_is_back() -> None:
    here = tuple(map(member, "cabx"))
    presence = Presence(here, frozenset({"a.1", "b.1", "gone.1"}), {"b.1"})
    assert (presence.living, presence.unready) == ({"a.1", "b.1", "c.1", "x.1"}, {"a.1"})
    assert (presence.ready_count, "".join(one.name for one in presence.ready)) == (3, "cbx")
    presence.unready.discard("a.1")
    assert (presence.ready_count, len(presence.ready)) == (4, 4)


def test_a_text_names_some_and_counts_the_rest() -> None:
    nodes = [f"n{number}" for number in range(1000)]
    assert named(["b", "a"]) == "a, b"
    assert named(nodes[:9]) == ", ".join(nodes[:9])
    assert named(nodes) == "n0, n1, n10, n100, n101, n102, n103, n104 and 992 others"
