"""What a rank's environment says of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.checkpoints.place import (
    FOLDER,
    KEEP,
    RESUME,
    ROUND,
    TIMEOUT,
    WORKING_DIRECTORY,
    has_place,
    place,
    working_directory,
)
from llutil.errors import ConfigError
from llutil.job_name import job_name, name_by_chance


def test_without_a_launcher_a_process_is_alone_and_each_is_a_round_of_its_own() -> None:
    one, other = place({}), place({WORKING_DIRECTORY: "/elsewhere"})
    assert (one.folder, one.job, one.rank, one.world_size) == ("checkpoints", "", 0, 1)
    assert (one.keep, one.timeout) == (3, 600)
    assert other.folder == "checkpoints"
    assert one.attempt(1) != other.attempt(1)


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


def test_processes_of_the_only_rank_of_a_round_save_nothing_together_and_decide_once() -> None:
    told = {ROUND: "r1", FOLDER: "/c/job"}
    assert place(told).attempt(1) != place(told).attempt(1)
    assert place(told).decision() == place(told).decision()
    both = told | {"WORLD_SIZE": "2"}
    assert place(both).attempt(1) == place(both).attempt(1) != place(both).attempt(2)
    assert place(both).decision() == place(both | {"RANK": "1"}).decision()


def test_without_a_checkpoint_path_all_ranks_save_where_their_agent_is_wherever_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {ROUND: "r1", WORKING_DIRECTORY: working_directory(), "TORCHELASTIC_RUN_ID": "train"}
    monkeypatch.chdir("/")
    assert place(told).folder == f"{tmp_path}/checkpoints/train"


def test_a_working_directory_that_was_removed_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert working_directory() == ""


@pytest.mark.parametrize(
    ("run_id", "folder"),
    [
        ("", "checkpoints"),
        (name_by_chance(), "checkpoints"),
        (name_by_chance("train"), "checkpoints"),
        ("train-42", "checkpoints/train-42"),
        ("a/../b", f"checkpoints/{job_name(['a/../b'], ['a/../b'])}"),
    ],
    ids=["none", "by chance", "by chance, with a name", "a name", "a name that is no folder"],
)
def test_jobs_of_one_node_without_a_checkpoint_path_meet_in_no_folder(
    run_id: str, folder: str
) -> None:
    told = {"TORCHELASTIC_RUN_ID": run_id, "GROUP_WORLD_SIZE": "1", "WORLD_SIZE": "2"}
    assert has_place(told | {ROUND: "r1"})
    found = place(told | {ROUND: "r1"})
    assert (found.folder, found.is_default) == (folder, True)
    assert not place(told | {ROUND: "r1", FOLDER: "/c/job"}).is_default
    assert place(told | {"WORLD_SIZE": "1"}).folder == "checkpoints"  # torchrun's rank


def test_a_job_of_several_nodes_has_a_place_only_by_a_checkpoint_path() -> None:
    told = {ROUND: "r1", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "train-42"}
    assert has_place(told | {FOLDER: "/c/job"})
    assert not has_place(told)
    with pytest.raises(ConfigError, match="job of 2 nodes has no place for checkpoints: it was"):
        place(told)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"WORLD_SIZE": "2"}, "among 2 ranks needs LLUTIL_ROUND"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({KEEP: "0"}, "LLUTIL_CHECKPOINT_KEEP is '0'"),
        ({TIMEOUT: "soon"}, "LLUTIL_CHECKPOINT_TIMEOUT is 'soon'"),
        ({RESUME: "no"}, "LLUTIL_RESUME is 'no' in the environment; wanted one of 'auto', 'always"),
        ({TIMEOUT: "nan"}, "LLUTIL_CHECKPOINT_TIMEOUT is 'nan'"),
    ],
)
def test_a_variable_that_cannot_be_is_named(environment: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        place(environment)
