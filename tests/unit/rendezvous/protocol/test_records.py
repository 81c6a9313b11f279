"""Every node works out the same, complete ranks from one assignment; rules that cannot work are
refused.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.errors import ConfigError
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Stage
from tests.support.rendezvous_values import round_of, seat

seats = st.lists(st.tuples(st.integers(1, 8), st.sampled_from(("trainer", "reader"))), min_size=1)


@given(seats)
def test_the_ranks_of_a_round_are_distinct_and_complete(shapes: list[tuple[int, str]]) -> None:
    agreed = round_of(
        "a",
        seats=tuple(
            seat(f"n{n}", nproc=nproc, role=role) for n, (nproc, role) in enumerate(shapes)
        ),
    )
    places = [agreed.ranks_of(node) for node in agreed.nodes]
    ranks = [
        rank for place in places for rank in range(place.first_rank, place.first_rank + place.nproc)
    ]
    assert ranks == list(range(sum(nproc for nproc, _ in shapes)))
    assert {place.world_size for place in places} == {len(ranks)}
    assert [place.group_rank for place in places] == list(range(len(shapes)))
    for role in {role for _, role in shapes}:
        mine = [place for place in places if place.role == role]
        of_role = [r for p in mine for r in range(p.first_role_rank, p.first_role_rank + p.nproc)]
        assert of_role == list(range(mine[0].role_world_size))


def test_a_node_without_a_seat_has_no_place() -> None:
    with pytest.raises(
        KeyError, match=r"'c.1' has no seat in round 1 of generation 1; seated: a.1, b.1"
    ):
        round_of("ab").ranks_of("c.1")


def test_stages_are_ordered_by_generation_first() -> None:
    assert Stage(1, 9) < Stage(2, 0) < Stage(2, 1)
    assert str(Stage(2, 1)) == "round 1 of generation 2"


def test_rules_name_all_that_is_wrong_with_them() -> None:
    with pytest.raises(ConfigError) as caught:
        ProtocolParameters(
            min_nodes=3,
            max_nodes=2,
            max_restarts=-1,
            lease_ttl=0,
            timeout=float("inf"),
            last_call=-1,
        )
    assert len(caught.value.problems) == 5
    assert "min_nodes is 3; wanted 1 to max_nodes, which is 2" in str(caught.value)
    assert "lease_ttl is 0" in str(caught.value)


@pytest.mark.parametrize(("most", "restarts", "left"), [(3, 2, True), (3, 3, False), (0, 0, False)])
def test_the_budget_is_one_number_for_the_job(most: int, restarts: int, left: bool) -> None:
    assert (
        ProtocolParameters(min_nodes=1, max_nodes=1, max_restarts=most).budget_left(restarts)
        is left
    )


def test_without_a_number_there_is_no_end_of_the_budget() -> None:
    assert ProtocolParameters(min_nodes=1, max_nodes=1, max_restarts=None).budget_left(10**6)
