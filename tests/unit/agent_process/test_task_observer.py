"""What a task is sent of its job."""

from __future__ import annotations

from typing import Any, cast

from llutil.agent_process.task_observer import TaskObserver
from llutil.task_link import messages


class Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[messages.Message] = []

    def send(self, message: messages.Message) -> None:
        self.sent.append(message)


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
