"""A worker's stderr is not an error by itself."""

from __future__ import annotations

import logging
import time

import pytest

from airflow_provider.agent_client.log_levels import StreamLevels, level_of

ORDINARY = [
    "epoch 3",
    "",
    " 40%|████      | 120/300 [00:01<00:02, 97.1it/s]",
    "INFO:root:hello",
    "2026-11-22 08:52:44,123 - trainer - INFO - no ERROR so far",
    "error rate 0.03",
    "Warnings are counted below",
    "    raise ValueError(x)",
    "I1122 08:52:44.123456 1 a.py:1] all well",
    "MyErrorless: fine",
]
WARNINGS = [
    "WARNING:root:careful",
    "[WARNING] careful",
    "WARN careful",
    "/dags/train.py:12: UserWarning: lr is high",
    "W1122 08:52:44.123000 1234 torch/distributed/run.py:766] Setting OMP_NUM_THREADS",
    "[W1122 08:52:44.500 socket.cpp:752] [c10d] cannot be retrieved",
    "[rank1]:[W1122 08:52:44.500 ProcessGroupNCCL.cpp:1496] Warning: destroy_process_group",
    "2026-11-22 08:52:44,123 - trainer - WARNING - careful",
]
ERRORS = [
    "ERROR:root:broken",
    "[ERROR] broken",
    "CRITICAL broken",
    "Traceback (most recent call last):",
    "[rank0]: Traceback (most recent call last):",
    "ValueError: broken",
    "torch.OutOfMemoryError: CUDA out of memory.",
    "KeyError",
    "E1122 08:52:44.123000 1234 torch/distributed/elastic/multiprocessing/api.py:882] failed",
    "2026-11-22T08:52:44.123Z [trainer] ERROR broken",
]


@pytest.mark.parametrize(
    ("text", "level"),
    [(text, logging.INFO) for text in ORDINARY]
    + [(text, logging.WARNING) for text in WARNINGS]
    + [(text, logging.ERROR) for text in ERRORS],
)
def test_a_line_on_stderr_gets_the_level_that_it_claims(text, level):
    assert level_of("stderr", text) == level


@pytest.mark.parametrize("text", ERRORS + WARNINGS + ORDINARY)
def test_what_is_printed_on_stdout_is_information(text):
    assert level_of("stdout", text) == logging.INFO


def levels(*texts, stream="stderr"):
    """One letter for each line."""
    lines = StreamLevels(stream)
    return "".join(logging.getLevelName(lines.level(text))[0] for text in texts)


@pytest.mark.parametrize("prefix", ["", "[rank3]: "])
def test_a_traceback_is_an_error_to_its_last_line_whatever_the_class_is_called(prefix):
    texts = [
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "    loss.backward()",
        "    ~~~~~~~~~~~~~^^",
        "my.Stop: now",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "train.py", line 5, in <module>',
        "KeyboardInterrupt",
        "epoch 4",
    ]
    assert levels(*(prefix + text for text in texts)) == "EEEEEEEEEEEI"


def test_a_group_of_exceptions_is_one_error():
    texts = [
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "a.py", line 1',
        "  | ExceptionGroup: two (2 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        "    | ValueError: 1",
        "    +------------------------------------",
    ]
    assert levels(*texts, "epoch 3") == "EEEEEEI"
    assert levels(*texts, "  4%|▍  | 12/300", "epoch 3") == "EEEEEEII"
    chained = ["", "During handling of the above exception, another exception occurred:", ""]
    assert levels(*texts, *chained, "Traceback (most recent call last):", "Stop: now") == "E" * 11
    first = ["Traceback (most recent call last):", "Stop: now"]
    assert levels(*first, *chained, *texts, "epoch 3") == "E" * 11 + "I"


def test_indented_lines_have_the_level_of_what_they_go_on_with():
    texts = ["/dags/train.py:12: UserWarning: lr is high", "  warnings.warn(text)", "epoch 3"]
    assert levels(*texts, "    layer 1") == "WWII"


def test_a_progress_bar_goes_on_with_nothing():
    assert levels("ERROR:root:broken", "  4%|▍  | 12/300", " 40%|████  | 120/300") == "EII"


def test_stdout_has_no_tracebacks():
    assert levels("Traceback (most recent call last):", "  File", stream="stdout") == "II"


@pytest.mark.parametrize("text", ["2026-11-22 " + ":" * 65_000, "a.A" * 22_000, "W" * 65_000])
def test_a_line_of_64_kib_takes_no_time(text):
    took = []
    for _ in range(5):  # a machine that stands still may count as time of this thread
        began = time.thread_time()
        assert StreamLevels("stderr").level(text) == logging.INFO
        took.append(time.thread_time() - began)
    assert min(took) < 0.05


def test_a_long_error_is_an_error_and_a_cut_through_a_word_makes_none():
    assert level_of("stderr", "ValueError: " + "x" * 65_000) == logging.ERROR
    for length in range(280, 320):
        assert level_of("stderr", "A" * length + "ErrorOfNobody") == logging.INFO
