from __future__ import annotations

from llutil.agent.hang.stack_text import Frame, Stack
from llutil.agent.hang.take_stacks import TakenStack
from llutil.agent_socket.messages import RankStatus
from llutil.command_line.stacks import told


def rank(number: int, step: int | None) -> RankStatus:
    return RankStatus(
        rank=number,
        local_rank=number,
        pid=100 + number,
        step=step,
        total=0,
        doing="steps",
        silent=None,
    )


def test_ranks_that_do_the_same_share_their_stacks() -> None:
    waits = TakenStack(Stack(((Frame("train.py", 7, "wait"), Frame("train.py", 9, "main")),)))
    works = TakenStack(Stack(((Frame("train.py", 3, "work"),), (Frame("load.py", 1, "read"),))))
    none = TakenStack(unknown="its process has ended")
    ranks = [rank(0, 5), rank(1, 4), rank(2, 5), rank(3, None)]
    assert told(ranks, {100: waits, 101: works, 102: waits, 103: none}) == [
        "rank 0 (step 5, pid 100), rank 2 (step 5, pid 102), most recent call first:",
        '  File "train.py", line 7, in wait',
        '  File "train.py", line 9, in main',
        "rank 1 (step 4, pid 101), most recent call first:",
        '  File "train.py", line 3, in work',
        "  another thread:",
        '  File "load.py", line 1, in read',
        "rank 3 (no step reported, pid 103): no stack: its process has ended",
    ]
