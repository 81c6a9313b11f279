"""The flags that a task raises on its job's page."""

from __future__ import annotations

import logging

import pytest

from llutil.agent_process.job_page import FLAGS, JobPage
from llutil.events.events import Events


def test_the_flags_that_are_asked_for_are_raised_and_no_other() -> None:
    page = JobPage()
    with Events() as events:
        page.opened(events)
        page.steer(["pause", "trigger_save_checkpoint"], "a test")
        raised = [name for name in FLAGS if getattr(events, name).is_set()]
        assert raised == ["pause", "trigger_save_checkpoint"]


def test_any_process_of_the_host_finds_the_page_by_the_path_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO), Events() as events:
        JobPage().opened(events)
        with Events.attach(caplog.messages[-1].rpartition(" ")[2]) as other:
            other.stop_all_tasks.set()
        assert events.stop_all_tasks.is_set()


@pytest.mark.parametrize("name", ["paused", "finished_save_checkpoint", "dance", "close", ""])
def test_what_a_task_may_not_raise_is_logged_and_the_other_flags_are_raised(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = JobPage()
    with Events() as events:
        page.opened(events)
        page.steer([name, "resume"], "a test")
        assert events.resume.is_set()
        assert not events.paused.is_set()
    assert f"the task wants to raise {name!r} (a test)" in caplog.text
    assert "it knows pause, resume, show_stacks, stop_all_tasks" in caplog.text


def test_a_flag_that_comes_before_or_after_the_job_is_no_error() -> None:
    page = JobPage()
    page.steer(["pause"], "early")
    with Events() as events:
        page.opened(events)
        assert not events.pause.is_set()
    page.steer(["pause"], "late")
