"""Orders: every rank reads the same one, from one descriptor."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.agent.worker_side.work_order import WorkOrder, read_order, write_order
from llutil.entrypoint import Command, FunctionName, Module, PickledCall, Script

words = st.text(min_size=1, max_size=10)
arguments = st.lists(st.text(max_size=10), max_size=3).map(tuple)
entrypoints = st.one_of(
    st.builds(PickledCall, words, st.binary(max_size=100)),
    st.builds(FunctionName, words, st.binary(max_size=100)),
    st.builds(Script, words, arguments),
    st.builds(Module, words, arguments),
    st.builds(Command, words, arguments),
)
orders = st.builds(
    WorkOrder,
    entrypoint=entrypoints,
    sys_path=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    argv=st.lists(st.text(st.characters(), max_size=10), max_size=3).map(tuple),  # any bytes
    result_limit=st.none() | st.integers(min_value=0),
    arrays=st.booleans(),
)


@settings(deadline=None, max_examples=30)
@given(orders)
def test_an_order_is_read_as_it_was_written_and_by_every_rank(order: WorkOrder) -> None:
    fd = write_order(order)
    try:
        assert read_order(fd) == order
        assert read_order(fd) == order
    finally:
        os.close(fd)


def test_a_payload_may_hold_newlines_and_be_large() -> None:
    order = WorkOrder(
        entrypoint=PickledCall("f", b"\n{}\n" * 100_000), sys_path=(), result_limit=None
    )
    fd = write_order(order)
    try:
        assert read_order(fd) == order
    finally:
        os.close(fd)


def test_other_programs_do_not_inherit_the_order() -> None:
    fd = write_order(WorkOrder(entrypoint=Script("x.py"), sys_path=(), result_limit=None))
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
