"""What a rank's environment says of its checkpoints."""

from __future__ import annotations

import pytest

from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import FOLDER, KEEP, ROUND, TIMEOUT, place, told_to_resume
from llutil.errors import ConfigError


def test_without_a_launcher_a_process_is_alone_and_each_is_a_round_of_its_own() -> None:
    one, other = place({}), place({})
    assert (one.folder, one.job, one.rank, one.world_size) == ("checkpoints", "", 0, 1)
    assert (one.keep, one.timeout) == (3, 600)
    assert one.round != other.round


def test_a_rank_is_what_its_agent_says() -> None:
    told = place(
        {
            FOLDER: "s3://bucket/job-7/",
            ROUND: "g1-r2",
            KEEP: "5",
            TIMEOUT: "60",
            "RANK": "1",
            "WORLD_SIZE": "2",
        }
    )
    assert (told.folder, told.job, told.round) == ("s3://bucket/job-7/", "job-7", "g1-r2")
    assert (told.rank, told.world_size, told.keep, told.timeout) == (1, 2, 5, 60)


def test_the_only_rank_of_a_round_meets_no_earlier_life_of_that_round() -> None:
    assert place({ROUND: "r1"}).round != place({ROUND: "r1"}).round


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"WORLD_SIZE": "2"}, "among 2 ranks needs LLUTIL_ROUND"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({KEEP: "0"}, "LLUTIL_CHECKPOINT_KEEP is '0'"),
        ({TIMEOUT: "soon"}, "LLUTIL_CHECKPOINT_TIMEOUT is 'soon'"),
        ({TIMEOUT: "nan"}, "LLUTIL_CHECKPOINT_TIMEOUT is 'nan'"),
    ],
)
def test_a_variable_that_cannot_be_is_named(environment: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        place(environment)


def test_what_the_agent_told_is_a_checkpoint_or_none() -> None:
    assert told_to_resume("null") is None
    assert told_to_resume('{"path": "/a", "step": 3, "world_size": 2}') == Checkpoint("/a", 3, 2)


@pytest.mark.parametrize("text", ["", "{", "3", '{"path": "/a"}'])
def test_what_no_agent_writes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted null, or JSON with path, step and world_size"):
        told_to_resume(text)
