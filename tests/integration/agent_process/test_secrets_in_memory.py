"""No rank has the password of the store in its memory, however it was started."""

from __future__ import annotations

import pytest

from llutil.task_link import messages
from tests.support.fake_task import FakeTask, spec, worker_function
from tests.support.launches import launch
from tests.support.memory_search import remembers

pytestmark = pytest.mark.launch

FIRST, SECOND = "orange-lantern-", "quiet-harbour-71"


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_forked_rank_never_had_the_password(method: str, folder: str) -> None:
    search = worker_function("remembers", FIRST, SECOND, module=remembers.__module__)
    options = {"user": "ann", "password": FIRST + SECOND}
    job = spec(search, folder, start_method=method, rdzv_configs=options)
    with FakeTask(job) as task:
        assert task.verdict() == messages.JobSucceeded((0,)), task.story()
        assert task.results() == {0: []}


@pytest.mark.usefixtures("no_torch")
def test_a_rank_of_a_library_launch_has_it_only_with_fork() -> None:
    """There, the caller's own memory is what a rank is to have."""
    options = {"user": "ann", "password": "".join((FIRST, SECOND))}
    for method, has in (("forkserver", False), ("spawn", False), ("fork", True)):
        found = launch(remembers, FIRST, SECOND, start_method=method, rdzv_configs=options)
        assert bool(found[0]) is has, method


def test_what_is_in_memory_is_found() -> None:
    password = ["".join((FIRST, SECOND))]
    assert "object" in remembers(FIRST, SECOND)
    assert any("rw" in line for line in remembers(FIRST, SECOND))
    assert password
