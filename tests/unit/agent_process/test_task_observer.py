"""What a task is sent of its job."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from llutil.agent_process.task_observer import TaskObserver
from llutil.agent_socket.messages import JobStatus, State
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.task_link import messages

STATUS = JobStatus(
    run_id="r",
    pid=1,
    host="h",
    entrypoint="e",
    state=State.WAITS,
    nodes=0,
    world_size=0,
    restarts=0,
    max_restarts=0,
    seconds=1.0,
)
END = RoundEnd(kind=RoundEndKind.SUCCESS)


class Link:
    """Keeps what is sent. ``slow``: the task reads too slowly."""

    def __init__(self, *, slow: bool = False) -> None:
        self.sent: list[messages.Message] = []
        self.slow = slow

    def send(self, message: messages.Message, *, replaceable: bool = False) -> bool:
        if replaceable and self.slow:
            return False
        self.sent.append(message)
        return True


def test_lines_are_sent_together_and_no_message_is_much_longer_than_a_screen() -> None:
    link = Link()
    observer = TaskObserver(cast("Any", link), cast("Any", None))
    lines = ["", *(f"step {number}" for number in range(5000)), "x" * 60_000, "y" * 60_000, ""]
    observer.output_lines(3, "[0]:", "stderr", lines)
    observer.output_lines(3, "[0]:", "stderr", [])
    sent = [message for message in link.sent if isinstance(message, messages.OutputLines)]
    assert {(one.rank, one.stream, one.prefix) for one in sent} == {(3, "stderr", "")}
    assert [line for one in sent for line in one.text.split("\n")] == lines
    assert len(sent) == 9
    assert all(len(one.text) <= 8192 or "\n" not in one.text.rstrip("\n") for one in sent)
    observer.sends_prefixes = True
    observer.output_lines(3, "[0]:", "stderr", ["one"])
    assert link.sent[-1] == messages.OutputLines(3, "stderr", "one", "[0]:")


@pytest.mark.parametrize("slow", [False, True])
def test_a_task_that_reads_too_slowly_is_told_nothing_that_something_newer_replaces(
    slow: bool,
) -> None:
    link = Link(slow=slow)
    observer = TaskObserver(cast("Any", link), cast("Any", None))
    observer.status(STATUS)
    observer.progress({0: (1, 9)}, {"loss": 1.0})
    observer.round_ended(END)
    observer.saved(1)
    replaced = [messages.NodeStatus(STATUS), messages.Progress({0: (1, 9)}, {"loss": 1.0})]
    others = [messages.RoundEnded(END), messages.Saved(1)]
    assert link.sent == (others if slow else [*replaced, *others])


def test_the_newest_of_what_was_not_sent_comes_when_nothing_newer_will_replace_it() -> None:
    link = Link(slow=True)
    observer = TaskObserver(cast("Any", link), cast("Any", None))
    last, later = {0: (9, 9)}, replace(STATUS, restarts=1)
    observer.progress({0: (1, 9)}, {})
    observer.progress(last, {})
    observer.status(STATUS)
    observer.round(0, 0, ())
    end = [messages.Progress(last, {}), messages.NodeStatus(STATUS), messages.RoundBegan(0, 0, ())]
    assert link.sent == end
    observer.status(later)
    observer.time_spent(3.0, 0.5, 1, "3 s")
    end += [messages.NodeStatus(later), messages.TimeSpent(3.0, 0.5, 1, "3 s")]
    assert link.sent == end
    link.slow = False
    observer.progress(last, {})
    observer.round(1, 0, ())
    assert link.sent == [*end, messages.Progress(last, {}), messages.RoundBegan(1, 0, ())]


def test_what_was_sent_since_is_not_sent_again_at_the_end() -> None:
    link = Link(slow=True)
    observer = TaskObserver(cast("Any", link), cast("Any", None))
    observer.progress({0: (1, 9)}, {})
    link.slow = False
    observer.progress({0: (2, 9)}, {})
    observer.round(0, 0, ())
    assert link.sent == [messages.Progress({0: (2, 9)}, {}), messages.RoundBegan(0, 0, ())]
