"""The agent's messages survive their way as bytes, however these are cut; anything else is
refused.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.agent_socket.messages import JobStatus, RankStatus, State
from llutil.agent_socket.round_end import RankEnd, RoundEnd, RoundEndKind
from llutil.entrypoint import Command, FunctionName, Module, PickledCall, Script
from llutil.errors import ConfigError
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.launcher.config import LaunchConfig
from llutil.launcher.numa_options import NumaOptions
from llutil.std import Std
from llutil.task_link import messages as wire
from llutil.task_link.decoder import Decoder

TEXT = st.text(st.characters(codec="utf-8") | st.just("\udcff"))
"""Lone surrogates too: a rank prints what it likes."""
COUNT = st.integers(0, 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | COUNT | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)
ENTRYPOINTS = st.one_of(
    st.builds(PickledCall, TEXT, st.binary()),
    st.builds(FunctionName, TEXT, st.binary()),
    st.builds(Script, TEXT, st.lists(TEXT).map(tuple)),
    st.builds(Module, TEXT, st.lists(TEXT).map(tuple)),
    st.builds(Command, TEXT, st.lists(TEXT).map(tuple)),
)
FAILURES = st.builds(
    Failure,
    rank=COUNT,
    local_rank=COUNT,
    group_rank=COUNT,
    label=TEXT,
    host=TEXT,
    pid=COUNT,
    restart=COUNT,
    max_restarts=COUNT,
    exit_status=st.integers(-64, 255),
    failure_class=st.sampled_from(FailureClass),
    reason=TEXT,
    trace=TEXT,
    tail=st.lists(TEXT).map(tuple),
    echo=st.booleans(),
    step=COUNT,
)
STREAMS = st.sampled_from(Std) | st.dictionaries(COUNT, st.sampled_from(Std))
CONFIGS = st.builds(
    LaunchConfig,
    COUNT,
    COUNT,
    COUNT | st.sampled_from(["cpu", "auto"]),
    run_id=TEXT,
    rdzv_configs=st.dictionaries(TEXT, JSON, max_size=3),
    log_dir=st.none() | TEXT,
    redirects=STREAMS,
    tee=STREAMS,
    metrics_cfg=st.dictionaries(TEXT, TEXT, max_size=2),
    shutdown_timeout=st.floats(0, 1e6),
    node_index=st.none() | COUNT,
    local_ranks_filter=st.sampled_from([None, "auto", "all"]) | st.lists(COUNT),
    numa_options=st.none() | st.builds(NumaOptions, TEXT, st.booleans()),
    duplicate_stdout_filters=st.none() | st.lists(TEXT),
    log_line_prefix_template=st.none() | TEXT,
)
JOB_FAILURES = st.builds(
    JobFailure,
    why=TEXT,
    failure_class=st.sampled_from(FailureClass),
    fatal=st.booleans(),
    failure=st.none() | FAILURES,
)
RANKS = st.builds(
    RankStatus,
    rank=COUNT,
    local_rank=COUNT,
    pid=COUNT,
    step=st.none() | COUNT,
    total=COUNT,
    doing=TEXT,
    silent=st.none() | st.floats(0, 1e9),
)
STATUSES = st.builds(
    JobStatus,
    run_id=TEXT,
    pid=COUNT,
    host=TEXT,
    entrypoint=TEXT,
    state=st.sampled_from(State),
    nodes=COUNT,
    world_size=COUNT,
    restarts=COUNT,
    max_restarts=COUNT,
    seconds=st.floats(0, 1e9),
    ranks=st.lists(RANKS, max_size=2).map(tuple),
    members=st.lists(TEXT, max_size=2).map(tuple),
    resumed_from=st.none() | COUNT,
)
ENDS = st.builds(
    RoundEnd,
    kind=st.sampled_from(RoundEndKind),
    why=TEXT,
    failure=st.none() | JOB_FAILURES,
    ranks=st.lists(
        st.builds(RankEnd, rank=COUNT, host=TEXT, status=st.integers(-64, 255), why=TEXT),
        max_size=2,
    ).map(tuple),
)
MESSAGES = st.one_of(
    st.builds(
        wire.Spec,
        config=CONFIGS,
        entrypoint=ENTRYPOINTS,
        result_limit=COUNT,
        arrays=st.booleans(),
        orphan_log=TEXT,
        agent_record=TEXT,
        launch=TEXT,
    ),
    st.builds(wire.Stop, TEXT),
    st.builds(wire.Steer, st.lists(TEXT).map(tuple), TEXT),
    st.builds(wire.Saved, COUNT),
    st.builds(wire.Steered, TEXT),
    st.builds(wire.Stopped, st.none() | COUNT, TEXT),
    st.builds(wire.Hello, COUNT, TEXT, COUNT, torch=TEXT, python_version=TEXT, launcher=TEXT),
    st.builds(wire.ResultInFile, COUNT, COUNT, COUNT),
    st.builds(wire.LedgerServed, TEXT),
    st.builds(wire.OutputLines, COUNT, st.sampled_from(["stdout", "stderr"]), TEXT, TEXT),
    st.builds(wire.LogRecord, TEXT, TEXT, TEXT),
    st.builds(wire.RoundBegan, COUNT, COUNT, st.lists(COUNT).map(tuple)),
    st.builds(
        wire.Progress,
        st.dictionaries(COUNT, st.tuples(COUNT, COUNT)),
        st.dictionaries(TEXT, st.floats(allow_nan=False)),
    ),
    st.builds(wire.RoundEnded, ENDS),
    st.builds(wire.NodeStatus, STATUSES),
    st.builds(wire.TimeSpent, st.floats(0, 1e9), st.none() | st.floats(0, 1), COUNT, TEXT),
    st.builds(wire.Result, COUNT, JSON),
    st.builds(wire.JobSucceeded, st.lists(COUNT).map(tuple)),
    st.builds(
        wire.JobFailed,
        TEXT,
        TEXT,
        st.booleans(),
        JOB_FAILURES,
    ),
)
FEW = settings(derandomize=True, max_examples=25, deadline=None)


@FEW
@given(messages=st.lists(MESSAGES, max_size=4), data=st.data())
def test_messages_arrive_in_order_however_the_bytes_are_cut(
    messages: list[wire.Message], data: st.DataObject
) -> None:
    stream = b"".join(map(wire.encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [message for piece in pieces for message in decoder.feed(piece)] == messages


@FEW
@given(message=MESSAGES)
def test_fields_of_a_newer_version_are_ignored(message: wire.Message) -> None:
    body = wire.to_json(message)
    names = ("failure", "entrypoint", "config", "status", "end")
    for part in (body, *(body.get(name) for name in names)):
        if part is not None:
            part["mood"] = {"of a newer": "version"}
    assert wire.from_json(json.loads(json.dumps(body))) == message


@FEW
@given(message=MESSAGES)
def test_a_message_is_one_line_of_ascii(message: wire.Message) -> None:
    line = wire.encode(message)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


def test_a_message_that_has_not_ended_is_not_delivered() -> None:
    decoder = Decoder()
    line = wire.encode(wire.Stop("enough"))
    assert list(decoder.feed(line[:-1])) == []
    assert list(decoder.feed(line[-1:])) == [wire.Stop("enough")]


def test_what_was_not_taken_is_there_the_next_time() -> None:
    decoder = Decoder()
    stops = [wire.Stop(reason) for reason in "abc"]
    stream = b"".join((wire.encode(stops[0]), b"garbage\n", *map(wire.encode, stops[1:])))
    for message in decoder.feed(stream):
        assert message == stops[0]
        break
    with pytest.raises(ConfigError, match="garbage"):
        list(decoder.feed(b""))
    assert decoder.first() == decoder.first() == stops[1]
    decoder.drop()
    assert list(decoder.feed(b"")) == stops[2:]
    assert decoder.first() is None


def test_a_line_that_is_no_message_does_not_come_again() -> None:
    decoder = Decoder()
    decoder.feed(b"garbage\n" + wire.encode(wire.Stop("enough")))
    with pytest.raises(ConfigError, match="garbage"):
        decoder.first()
    assert decoder.first() == wire.Stop("enough")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"hello", "not a message on the agent's socket: b'hello'"),
        (b"\xff\xfe", "not a message"),
        (b"", "not a message"),
        (b"[1]", "not a message"),
        (b"[" * 100_000, "not a message"),
        (b'"stop"', "not a message"),
        (b'{"type":"stop"}', "not a message"),
        (b'{"type":"roundbegan","restart":0}', "not a message"),
        (b'{"type":"progress","ranks":{"a":[1,2]}}', "not a message"),
        (b'{"type":"jobfailed","error":"","report":"","retryable":true,"job_failure":{"failure_class":"bad luck"}}', "not a m"),
        (b'{"type":"jobfailed","error":"","report":"","retryable":true,"job_failure":{"failure":{"rank":0}}}', "not a m"),
        (b'{"type":"jobfailed","error":"","report":"","retryable":true}', "not a m"),
        (b'{"type":"spell"}', "Invalid value 'spell'"),
        (b"{}", "missing required field `type`"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_message_is_refused(line: bytes, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        list(Decoder().feed(line + b"\n"))


def test_a_spec_of_another_version_says_which_and_what_to_do() -> None:
    body: dict[str, Any] = json.loads(
        wire.encode(
            wire.Spec(
                config=LaunchConfig(1, 1, 1), entrypoint=Command("x"), result_limit=1, orphan_log=""
            )
        )
    )
    body["version"] = 99
    with pytest.raises(
        ConfigError, match=r"version 99, and this agent reads version \d+: install the same"
    ):
        list(Decoder().feed(json.dumps(body).encode() + b"\n"))
