"""For which jobs an agent process forks their fork server from itself, and what it imports torch with."""

from __future__ import annotations

import os
from typing import Any

import pytest

from llutil import wire
from llutil.entrypoint import Script
from llutil.serve.process import _wants_server, _without_blas_threads

CORES = len(os.sched_getaffinity(0))


def spec(**config: Any) -> wire.Spec:
    fields = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "start_method": "forkserver"}
    return wire.Spec(
        config=fields | config,
        entrypoint=Script("train.py"),
        grace=30,
        result_limit=1000,
        afterlog="/dev/null",
    )


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, True),
        ({"nproc_per_node": "cpu"}, True),
        # To count accelerators another process imports torch; a server of its own can do so meanwhile.
        ({"nproc_per_node": "auto"}, False),
        ({"nproc_per_node": "gpu"}, False),
        ({"start_method": "spawn"}, False),
        ({"start_method": "fork"}, False),
        ({"start_method": "thread"}, False),
        ({"nproc_per_node": 0}, False),
        ({"no_such_field": 1}, False),
    ],
    ids=str,
)
def test_only_a_sound_job_with_a_known_number_of_warm_workers_wants_a_server(
    config: dict[str, Any], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert _wants_server(spec(**config)) is wanted


@pytest.mark.parametrize(
    ("nproc", "given", "used"),
    [(1, None, None), (2, None, "1"), (2, "4", "4"), (1, "4", "4")],
)
def test_torch_is_imported_with_the_threads_that_each_rank_will_have(
    nproc: int, given: str | None, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    assert _wants_server(spec(nproc_per_node=nproc))
    assert os.environ.get("OMP_NUM_THREADS") == used


@pytest.mark.parametrize("before", [{}, {"OPENBLAS_NUM_THREADS": "4"}])
def test_what_keeps_numpy_from_starting_threads_is_not_left_in_the_environment(
    before: dict[str, str],
) -> None:
    environ = dict(before)
    with _without_blas_threads(environ):
        assert environ == {"OPENBLAS_NUM_THREADS": "1"}
    assert environ == before
