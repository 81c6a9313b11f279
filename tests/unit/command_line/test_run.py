from __future__ import annotations

import pytest

from llutil.command_line.run import exit_code
from llutil.failure import Failure, FailureClass, JobFailure


def failed(status: int | None) -> JobFailure:
    found = JobFailure(why="it failed", failure_class=FailureClass.USER_CODE)
    if status is None:
        return found
    failure = Failure(
        rank=0,
        local_rank=0,
        pid=1,
        exit_status=status,
        failure_class=FailureClass.USER_CODE,
        reason="it failed",
    )
    return JobFailure(why="it failed", failure_class=FailureClass.USER_CODE, failure=failure)


@pytest.mark.parametrize(("status", "code"), [(7, 7), (1, 1), (-9, 137), (-15, 143), (0, 1)])
def test_the_exit_code_is_the_failed_ranks_as_a_shell_has_it(status: int, code: int) -> None:
    assert exit_code(failed(status)) == code


def test_it_is_1_if_no_rank_is_known_to_have_failed() -> None:
    assert exit_code(failed(None)) == 1
