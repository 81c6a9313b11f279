"""For which jobs an agent process forks their fork server from itself, and what it imports torch
with.
"""

from __future__ import annotations

from typing import Any

import pytest

from llutil.agent_process.prefork import import_environment, should_prefork
from llutil.launcher.config import LaunchConfig


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, True),
        ({"nproc_per_node": "cpu"}, True),
        ({"nproc_per_node": "auto"}, False),
        ({"nproc_per_node": "gpu"}, False),
        ({"start_method": "spawn"}, False),
        ({"start_method": "fork"}, True),
        ({"start_method": "thread"}, False),
        ({"nproc_per_node": 0}, False),
        ({"max_restarts": -1}, False),
    ],
    ids=str,
)
def test_only_a_sound_job_with_a_known_number_of_warm_workers_wants_a_server(
    config: dict[str, Any], wanted: bool
) -> None:
    fields: dict[str, Any] = {"nproc_per_node": 2, "start_method": "forkserver"}
    assert should_prefork(LaunchConfig(1, 1, **(fields | config))) is wanted


@pytest.mark.parametrize(
    ("nproc", "given", "found"),
    [
        (1, {}, {}),
        (2, {}, {"OMP_NUM_THREADS": "1"}),
        (2, {"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"}),
        (1, {"OPENBLAS_NUM_THREADS": "4"}, {"OPENBLAS_NUM_THREADS": "4"}),
    ],
)
def test_torch_is_imported_with_what_each_rank_will_have_but_starts_no_threads(
    nproc: int, given: dict[str, str], found: dict[str, str]
) -> None:
    environ = dict(given)
    with import_environment(nproc, environ):
        assert environ == found | {"OPENBLAS_NUM_THREADS": "1"}
    assert environ == found, "what is for the imports alone is not left to the ranks"
