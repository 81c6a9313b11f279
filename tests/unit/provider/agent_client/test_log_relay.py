"""Bytes become lines, and lines get their speaker and their level."""

from __future__ import annotations

import logging
from unittest.mock import ANY

from airflow_provider.agent_client.log_relay import LogRelay
from llutil.progress.log_lines import ProgressLines
from llutil.task_link.messages import LogRecord, OutputLines, Progress, RoundBegan


class Sink:
    """Where a relay writes."""

    def __init__(self):
        self.lines = []

    def log(self, level, text):
        self.lines.append((logging.getLevelName(level), text))


def relay():
    log = Sink()
    return LogRelay(log, ProgressLines(lambda line: log.log(logging.INFO, line))), log.lines


def test_ranks_and_agent_are_told_apart():
    spoken, lines = relay()
    spoken.event(OutputLines(3, "stdout", "hello"))
    spoken.event(LogRecord("ERROR", "llutil.agent", "trouble"))
    spoken.event(LogRecord("NOLEVEL", "x", "odd"))
    spoken.printed("stderr", "W1122 08:52:44 careful")
    assert lines == [
        ("INFO", "[rank 3] hello"),
        ("ERROR", "[agent] trouble"),
        ("INFO", "[agent] odd"),
        ("WARNING", "[agent] W1122 08:52:44 careful"),
    ]


class BindingSink(Sink):
    """The same, as a logger of structlog."""

    def __init__(self, name="", lines=None):
        self.name, self.lines = name, [] if lines is None else lines

    def bind(self, *, logger):
        return BindingSink(logger, self.lines)

    def log(self, level, text):
        self.lines.append((self.name, text))


def test_each_rank_is_a_source_of_its_own_in_airflows_log():
    log = BindingSink("task")
    spoken = LogRelay(log, ProgressLines(lambda line: log.log(logging.INFO, line)))
    spoken.event(OutputLines(3, "stdout", "hello"))
    spoken.event(OutputLines(0, "stderr", "careful"))
    spoken.event(LogRecord("ERROR", "llutil.agent", "trouble"))
    assert log.lines == [
        ("rank 3", "[rank 3] hello"),
        ("rank 0", "[rank 0] careful"),
        ("task", "[agent] trouble"),
    ]


def test_lines_that_come_together_are_one_record_as_long_as_they_have_one_level():
    spoken, lines = relay()
    spoken.event(OutputLines(3, "stdout", "epoch 1\n\nERROR of nobody"))
    spoken.event(
        OutputLines(3, "stderr", "epoch 1\nTraceback (most recent call last):\n  File\nX: y")
    )
    spoken.event(OutputLines(3, "stderr", "epoch 2"))
    assert lines == [
        ("INFO", "[rank 3] epoch 1\n[rank 3] \n[rank 3] ERROR of nobody"),
        ("INFO", "[rank 3] epoch 1"),
        (
            "ERROR",
            "[rank 3] Traceback (most recent call last):\n[rank 3]   File\n[rank 3] X: y",
        ),
        ("INFO", "[rank 3] epoch 2"),
    ]


def test_a_line_begins_as_the_jobs_template_wants_it():
    spoken, lines = relay()
    spoken.event(OutputLines(3, "stdout", "hello", "trainer 3 of 8: "))
    assert lines == [("INFO", "trainer 3 of 8: hello")]


def test_the_agents_last_errors_are_remembered_but_not_all_of_them():
    spoken, _ = relay()
    for number in range(100):
        spoken.printed("stderr", f"line {number}")
        spoken.printed("stdout", "not an error")
    assert list(spoken.last_errors) == [f"line {number}" for number in range(80, 100)]


def test_progress_goes_to_the_display_and_its_last_state_into_the_log():
    spoken, lines = relay()
    spoken.event(Progress({}))
    for step in range(1, 4):
        spoken.event(Progress({0: (step, 3)}))
    spoken.close()
    assert lines == [
        ("INFO", "progress: rank 0 1/3 (33 %)"),
        ("INFO", ANY),
    ]
    assert lines[1][1].startswith("progress: rank 0 3/3 (100 %)")


def test_a_traceback_has_one_level_though_two_ranks_speak_at_once():
    spoken, lines = relay()
    for text in ("Traceback (most recent call last):", '  File "a.py", line 1', "Stop: now"):
        spoken.event(OutputLines(0, "stderr", text))
        spoken.event(OutputLines(1, "stderr", "epoch 1"))
        spoken.event(OutputLines(0, "stdout", "  a table"))
    assert [level for level, _ in lines] == ["ERROR", "INFO", "INFO"] * 3


def test_a_traceback_that_a_rank_was_killed_in_ends_with_its_round():
    spoken, lines = relay()
    begun = "Traceback (most recent call last):"
    spoken.printed("stderr", begun)
    spoken.event(OutputLines(0, "stderr", begun))
    spoken.event(RoundBegan(1, 1, (0,)))
    spoken.event(OutputLines(0, "stderr", "epoch 1"))
    spoken.printed("stderr", "Stop: now")
    assert [level for level, _ in lines] == ["ERROR", "ERROR", "INFO", "ERROR"]


def test_the_display_is_hidden_while_a_person_debugs_a_rank():
    calls = []

    class Display(ProgressLines):
        def begin(self, nodes):
            calls.append(("begin", nodes))

        def show(self, ranks, metrics):
            calls.append(("show", dict(ranks)))

        def hide(self):
            calls.append(("hide", None))

    spoken = LogRelay(Sink(), Display(print))
    spoken.event(RoundBegan(0, 8, (2, 3)))
    spoken.event(Progress({2: (1, 9)}))
    spoken.event(Progress({}))
    spoken.event(RoundBegan(0, 0, ()))
    assert calls == [("begin", 4), ("show", {2: (1, 9)}), ("hide", None)]


def test_each_line_has_its_prefix_whatever_the_text_has_in_it():
    spoken, lines = relay()
    spoken.event(LogRecord("WARNING", "x", "rank 1: odd\n[agent] forged\x85[agent] too\n"))
    spoken.event(OutputLines(1, "stdout", "x\u2028[rank 0] forged\x1b[1A"))
    spoken.say(logging.ERROR, "the agent still runs")
    assert lines == [
        ("WARNING", "[agent] rank 1: odd\n[agent] [agent] forged\\x85[agent] too"),
        ("INFO", "[rank 1] x\\u2028[rank 0] forged\\x1b[1A"),
        ("ERROR", "the agent still runs"),
    ]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def folding_relay(clock, ranks=range(4), world_size=4, shown="auto"):
    log = Sink()
    found = LogRelay(log, ProgressLines(print), "node 1", folds=True, shown=shown, clock=clock)
    found.event(RoundBegan(0, world_size, tuple(ranks)))
    return found, log.lines


def test_the_same_lines_of_many_ranks_are_folded_and_are_records_together():
    clock = Clock()
    spoken, lines = folding_relay(clock)
    for rank in range(4):
        spoken.event(OutputLines(rank, "stdout", f"begin\nepoch 1\nloss of {rank}"))
    assert lines == [("INFO", "[node 1] [ranks 0-3] begin\n[node 1] [ranks 0-3] epoch 1")]
    assert spoken.due == 0.3
    clock.now = 0.3
    spoken.turn()
    assert lines[1:] == [
        ("INFO", "\n".join(f"[node 1] [rank {rank}] loss of {rank}" for rank in range(4)))
    ]
    assert spoken.due == float("inf")


def test_lines_that_wait_come_before_what_the_agent_says_after_them():
    spoken, lines = folding_relay(Clock())
    spoken.event(OutputLines(0, "stderr", "ValueError: no"))
    spoken.event(LogRecord("WARNING", "llutil.agent", "rank 0 failed"))
    spoken.event(OutputLines(1, "stderr", "the last words"))
    spoken.close()
    assert [text for _, text in lines] == [
        "[node 1] [rank 0] ValueError: no",
        "[node 1] [agent] rank 0 failed",
        "[node 1] [rank 1] the last words",
    ]
    assert lines[0][0] == "ERROR"


def test_no_line_waits_where_few_ranks_are_shown_or_a_user_wants_a_prefix():
    for given in (
        {"ranks": range(2)},
        {"ranks": range(16), "world_size": 16},  # rank 0 alone is shown
        {"shown": {0, 2}},
    ):
        spoken, lines = folding_relay(Clock(), **given)
        spoken.event(OutputLines(0, "stdout", "at once"))
        assert lines == [("INFO", "[node 1] [rank 0] at once")]
    spoken, lines = folding_relay(Clock())
    spoken.event(OutputLines(0, "stdout", "at once", "trainer 0: "))
    assert lines == [("INFO", "[node 1] trainer 0: at once")]
    spoken, lines = folding_relay(Clock(), ranks=range(16), world_size=16, shown="all")
    spoken.event(OutputLines(0, "stdout", "waits"))
    assert not lines
