"""Which tracebacks are the same."""

from __future__ import annotations

from airflow_provider.retries.signature import signature
from tests.support.rendezvous_values import failure

TRACE = (
    "Traceback (most recent call last):\n"
    '  File "/dags/train.py", line 7, in train\n'
    "    raise ValueError(f'{number} is no digit')\n"
    "ValueError: 0x7f00 is no digit after 3.5 s"
)


def test_a_signature_tells_tracebacks_apart_and_not_their_numbers() -> None:
    one = signature(failure(trace=TRACE))
    assert one
    assert signature(failure(trace=TRACE.replace("0x7f00", "0x8a11").replace("3.5", "4.25"))) == one
    assert signature(failure(trace=TRACE, rank=0, pid=1, host="other", restart=2)) == one
    assert signature(failure(trace=TRACE.replace("line 7", "line 8"))) != one
    assert signature(failure(trace=TRACE.replace("digit", "letter"))) != one


def test_a_failure_after_a_step_or_without_a_word_has_no_signature() -> None:
    assert signature(failure(trace=TRACE, step=1)) == ""
    assert signature(failure()) == ""
    assert signature(None) == ""
    assert signature(failure(tail=("no such file",))) == signature(failure(tail=("no such file",)))
    assert signature(failure(tail=("no such file",))) != signature(failure(tail=("no memory",)))
