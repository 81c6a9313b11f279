"""When a node without workers looks at its siblings again."""

from __future__ import annotations

import random

import pytest

from airflow_provider.agent_client.idle_checks import IdleChecks

FOREVER = float("inf")


@pytest.mark.parametrize(("drawn", "wait"), [(0.0, 10.0), (0.5, 12.5), (1.0, 15.0)])
def test_a_check_is_due_after_the_period_or_up_to_half_as_much_more(drawn, wait):
    checks = IdleChecks(10.0, lambda: drawn)
    assert not checks.due(100.0 + wait, idle_since=100.0)
    assert checks.due(100.1 + wait, idle_since=100.0)
    checks.done(200.0)
    assert not checks.due(200.0 + wait, idle_since=100.0)
    assert checks.due(200.1 + wait, idle_since=100.0)


def test_none_is_due_while_workers_run():
    assert not IdleChecks(10.0, lambda: 0.0).due(1e9, idle_since=FOREVER)


def test_nodes_whose_workers_ended_together_do_not_look_together():
    nodes = [IdleChecks(10.0, random.Random(number).random) for number in range(64)]
    looks = []
    for tenth in range(1200):
        now = tenth / 10
        due = [node for node in nodes if node.due(now, idle_since=0.0)]
        looks.append(len(due))
        for node in due:
            node.done(now)
    # A look each 10 to 15 s, whatever the number of nodes; in step, it would be 64 at once.
    assert 64 * 8 <= sum(looks) <= 64 * 11
    assert max(looks) <= 8
