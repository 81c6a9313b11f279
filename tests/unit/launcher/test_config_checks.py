"""What can be known to be wrong with a configuration is known before anything runs, and all at
once.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from llutil.backends.table import BACKENDS
from llutil.chaos import kill, preempt, random_faults
from llutil.errors import Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.numa_options import NumaOptions
from llutil.std import Std

INFINITY, NAN = math.inf, math.nan
GOOD: dict[str, Any] = {
    "min_nodes": 1,
    "max_nodes": 1,
    "nproc_per_node": 1,
    "checkpoint_path": "/checkpoints",
}
SEVERAL: dict[str, Any] = {"max_nodes": 4, "rdzv_endpoint": "h:1", "rdzv_backend": "c10d"}


@dataclass(frozen=True)
class TorchNuma:
    """What torch's ``NumaOptions`` looks like."""

    affinity_mode: str
    should_fall_back_if_binding_fails: bool = False


def problems(**values: Any) -> list[Problem]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return problems_of(LaunchConfig(**(GOOD | values)))


BAD: dict[str, list[Any]] = {
    "min_nodes": [0, -1, 2, "1", 1.0, None, True],
    "max_nodes": [0, "1", 1.5, None, False],
    "nproc_per_node": [0, -1, 257, "", "8", "gpus", "GPU", "auto,", 1.0, None, True, [1]],
    "run_id": ["a/b", "a b", "-x", ".x", "é", "x" * 201, 7, None, "a\n"],
    "role": ["", None, 3],
    "rdzv_endpoint": [
        "host",
        "host:",
        ":1",
        "h:port",
        "h:65536",
        "h:0",
        "h:1:2",
        "::1:80",
        7,
        None,
        " ",
    ],
    "rdzv_backend": ["", "etcd-v2", "ETCD", None, 3, []],
    "rdzv_configs": [
        {"nope": 1},
        {"timeout": 0},
        {"timeout": "0"},
        {"timeout": "soon"},
        {"last_call_timeout": -1},
        {"cacert": 3},
        {"timeout": NAN},
        {1: 1},
        3,
        None,
        {"timeout": INFINITY},
        {"timeout": True},
    ],
    "rdzv_timeout": [0, -2, NAN, "9", None, INFINITY, True],
    "max_restarts": [-1, 1.5, "3", None, True],
    "monitor_interval": [0, -1, NAN, INFINITY, "30", None, True],
    "start_method": ["", "Spawn", "thread", None],
    "log_dir": [3, b"logs", ""],
    "redirects": [True, 4, -1, "3", None, {0: 4}, {"0": Std.ALL}, {-1: Std.ALL}, {0: None}],
    "tee": [4, -1, "3", None, {0: 4}, {"0": Std.ALL}],
    "metrics_cfg": [None, 3, {"a": 1}, {1: "a"}, ["a"], {"a": "file"}, {"a": "my_pkg:"}],
    "local_ranks_filter": [3, "0", "Auto", {0: 1}, ["a"], [-1], [True]],
    "local_addr": [3, ""],
    "restart_grace": [-1, NAN, INFINITY, "3", None, True],
    "hang_timeout": [0, -1, NAN, INFINITY, "30", "Auto", "", True, [1]],
    "exit_timeout": [0, -1, NAN, INFINITY, "30", None, True],
    "shutdown_timeout": [-1, NAN, INFINITY, "30", True],
    "event_log_handler": [None, 3, ""],
    "rerun_token": [None, 3],
    "node_index": [-1, "0", 1.5, True],
    "node_label": [None, 3],
    "virtual_local_rank": [None, 1, "yes"],
    "signals_to_handle": [
        None,
        3,
        "",
        "SIGTERM,",
        "SIGTRM",
        "sigterm",
        "SIG_IGN",
        "SIGTERM,SIGKILL",
    ],
    "numa_options": [3, "nodes", NumaOptions("nearest"), {"affinity_mode": "node"}],
    "log_line_prefix_template": [3, "two\nlines", "\x1b[31m"],
    "duplicate_stdout_filters": [3, "loss", [3], {"a": "b"}, [""]],
    "duplicate_stderr_filters": [3, "loss", [3], {"a": "b"}, [""]],
    "log_lines": [None, True, 3, "", "Folded", "all", ["folded"]],
    "checkpoint_path": [3, b"/c", "", " ", "/a\0b", "s3:/bucket", "s3:bucket", "://b", "S 3://b"],
    "checkpoint_job": [None, 3],
    "checkpoint_every": [
        *(0, -1, 1.5, NAN, True, "", "0", "-5", "1.5", "0s", "-3s", "10 parsecs", "5m", "1e3s"),
        *("nans", "min", "9" * 20, "9" * 5000, [1], b"5"),
    ],
    "checkpoint_keep": [0, -1, "3", 1.5, None, True],
    "resume": ["", "Auto", "sometimes", None, True, 3, []],
    "chaos": [
        5,
        {"kill": 1},
        [5],
        "kill",
        "kil(rank=0, step=1)",
        "kill(rank=0, step=0)",
        "kill(rank=1, step=1)",  # of one rank
        "preempt(node=1, step=1)",
        "cut(node=0, seconds=1)",  # from nothing
    ],
}

GOOD_VALUES: dict[str, list[Any]] = {
    "min_nodes": [1],
    "max_nodes": [1],
    "nproc_per_node": [1, 256, "cpu", "gpu", "auto", "xpu", "npu", "privateuseone"],
    "run_id": ["", "a", "x" * 200, "manual__2026-11-22T09:00:00+00:00", "_a.b~c:d+e-f"],
    "role": ["default_role", "trainer 1"],
    "rdzv_endpoint": [
        "",
        "h:1",
        "10.0.0.1:65535",
        "[::1]:29500",
        "a:1,b:2",
        "my-host.example:2379",
    ],
    "rdzv_backend": ["etcd", "zeus-adapter", "c10d", "static"],
    "rdzv_configs": [
        {},
        {"timeout": 0.5, "last_call_timeout": 30, "lease_ttl": 10},
        {"timeout": "5", "last_call_timeout": 0, "lease_ttl": None, "cacert": ""},
    ],
    "rdzv_timeout": [-1, 600, 0.5],
    "max_restarts": [0, 1000],
    "monitor_interval": [0.1, 30, 1e9],
    "start_method": ["spawn", "fork", "forkserver"],
    "log_dir": [None, "logs", "/var/log/jobs", Path("logs")],
    "redirects": [Std.NONE, Std.ALL, 3, {}, {0: Std.OUT, 7: 2}],
    "tee": [Std.NONE, Std.ERR, {3: Std.ALL}],
    "metrics_cfg": [{}, {"torchelastic": "console", "llutil": "my_pkg.metrics:Handler"}],
    "local_ranks_filter": [None, "auto", "all", [], {0, 3}, (0,), frozenset({7})],
    "local_addr": [None, "10.0.0.1", "fd00::1"],
    "exit_timeout": [0.5, 3600],
    "hang_timeout": ["auto", None, 0.5, 3600],
    "restart_grace": [0, 0.5, 3600],
    "shutdown_timeout": [0, 0.5, 3600, None],
    "event_log_handler": ["null", "console"],
    "rerun_token": ["", "3"],
    "node_index": [None, 0, 7],
    "node_label": ["", "train[2]"],
    "virtual_local_rank": [False, True],
    "signals_to_handle": ["SIGTERM", "SIGTERM,SIGINT, SIGUSR1 ,SIGUSR2"],
    "numa_options": [None, "node", "core-complex", NumaOptions("socket", True), TorchNuma("node")],
    "log_line_prefix_template": [None, "", "[rank ${rank}, $user's]: "],
    "duplicate_stdout_filters": [None, [], ["loss", "nan"], {"loss"}],
    "duplicate_stderr_filters": [None, (), ["Traceback"]],
    "log_lines": ["folded", "separate", "complete"],
    "checkpoint_path": [
        *(None, "/c", Path("/c"), "~/c", "~ann/c", "c", "/a b:c", "s3://bucket/c", "memory://"),
        *("file:///c", "gs://b/a", "abfs+x://container@account.example/c"),
    ],
    "checkpoint_job": ["", "train", "team/train 1", "../x", "."],
    "checkpoint_every": [None, 1, 100, "100", " 100 ", "90s", "0.5s", "10min", "10 min", "2h"],
    "checkpoint_keep": [1, 1000],
    "resume": ["auto", "always", "never"],
    "chaos": [
        None,
        (),
        "kill(rank=0, step=1)",
        kill(rank=0, step=1),
        [preempt(node=0, step=1), "oom(rank=0, step=2) hang(rank=0, step=3)"],
        random_faults(seed=1, ranks=1, steps=1),
    ],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{index}")
        for name, values in table.items()
        for index, value in enumerate(values)
    ]


def test_the_tables_cover_every_field() -> None:
    names = {field.name for field in fields(LaunchConfig)}
    assert set(BAD) == set(GOOD_VALUES) == names


@pytest.mark.parametrize(("name", "value"), cases(GOOD_VALUES))
def test_a_good_value_gives_no_problem(name: str, value: Any) -> None:
    assert problems(**{name: value}) == []


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_bad_value_gives_one_problem_that_names_it(name: str, value: Any) -> None:
    (problem,) = problems(**{name: value})
    assert name in {problem.field, *problem.others}
    shown = value if not isinstance(value, dict) else next(iter(value.values()))
    key = next(iter(value)) if isinstance(value, dict) else None
    found = (repr(shown)[:80], repr(key), type(value).__name__, str(shown).rpartition(":")[2])
    assert any(part in problem.text for part in found if part), problem
    assert "wanted" in problem.text or "knows" in problem.text, "it says what would be right"


def test_all_problems_are_given_at_once() -> None:
    found = problems(
        min_nodes=4,
        max_nodes=2,
        nproc_per_node=0,
        run_id="a/b",
        rdzv_endpoint="nowhere",
        rdzv_backend="carrier-pigeon",
        rdzv_timeout=0,
        max_restarts=-1,
        monitor_interval=0,
        start_method="thread",
        redirects="all",
        tee={0: 9},
        metrics_cfg=3,
        shutdown_timeout=-1,
    )
    assert sorted(problem.field for problem in found) == [
        "max_nodes",
        "max_restarts",
        "metrics_cfg",
        "monitor_interval",
        "nproc_per_node",
        "rdzv_backend",
        "rdzv_endpoint",
        "rdzv_timeout",
        "redirects",
        "run_id",
        "shutdown_timeout",
        "start_method",
        "tee",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_key_that_a_backend_knows_is_accepted_and_any_other_is_named(backend: str) -> None:
    configs = {option.key: "1" for option in BACKENDS[backend].options}
    assert problems(rdzv_backend=backend, rdzv_configs=configs) == []
    (problem,) = problems(rdzv_backend=backend, rdzv_configs=configs | {"tiemout": 1, "b": 2})
    assert problem.field == "rdzv_configs"
    assert problem.text.startswith(f"has 'b', 'tiemout', which backend '{backend}' does not")


def test_several_nodes_need_an_endpoint() -> None:
    (problem,) = problems(max_nodes=2)
    assert "rdzv_endpoint is empty, but up to 2 nodes must find each other" in str(problem)


@pytest.mark.parametrize(
    ("backend", "endpoint", "bad"),
    [
        ("etcd", "a:1,b:2,c:3", None),
        ("etcd", "a:1,b", "b"),
        ("zeus-adapter", "a:1,b:2/my/root", None),
        ("zeus-adapter", "a:1,b/my/root", "b"),
        ("c10d", "a:1,b:2", "a:1,b:2"),
        ("static", "a:1/x", "a:1/x"),
    ],
)
def test_an_endpoint_has_the_form_of_its_backend(
    backend: str, endpoint: str, bad: str | None
) -> None:
    configs = {"rank": 0} if backend == "static" else {}
    found = problems(rdzv_backend=backend, rdzv_endpoint=endpoint, rdzv_configs=configs)
    assert (
        found == [] if bad is None else [repr(bad) in problem.text for problem in found] == [True]
    )


@pytest.mark.parametrize(
    ("rank", "found"),
    [
        (0, None),
        (3, None),
        (None, "has no 'rank'"),
        ("", "has no 'rank'"),
        ("2", None),
        (4, "'rank': 4; wanted this node's number, 0 to 3"),
        (-1, "'rank': -1; wanted a whole number"),
        (1.5, "'rank': 1.5; wanted a whole number"),
    ],
)
def test_a_static_rendezvous_needs_a_rank_below_the_number_of_nodes(
    rank: Any, found: str | None
) -> None:
    configs = {} if rank is None else {"rank": rank}
    values = SEVERAL | {"min_nodes": 4, "rdzv_backend": "static", "rdzv_configs": configs}
    assert [found in problem.text for problem in problems(**values) if found] == (
        [True] if found else []
    )


def test_a_static_rendezvous_has_a_fixed_number_of_nodes() -> None:
    values = SEVERAL | {"rdzv_backend": "static", "rdzv_configs": {"rank": 0}}
    (problem,) = problems(**values)
    assert str(problem).startswith("max_nodes is 4 and min_nodes is ")


def test_a_path_that_each_node_would_look_for_elsewhere_is_for_one_node() -> None:
    assert problems(checkpoint_path="c") == []
    (problem,) = problems(checkpoint_path="c", **SEVERAL)
    assert str(problem).startswith("checkpoint_path is 'c', which is another folder on each of 4")
    assert problem.others == ("max_nodes",)
    assert problems(checkpoint_path="~/c", **SEVERAL) == []


def test_a_password_in_a_uri_is_refused_and_not_shown() -> None:
    (slip,) = problems(checkpoint_path="ftp:/ann:hidden@host/c")
    assert "hidden" not in slip.text
    (problem,) = problems(checkpoint_path="ftp://ann:hidden@host/c")
    assert problem.field == "checkpoint_path"
    assert "with a password in it" in problem.text
    assert "hidden" not in problem.text
    for uri in (
        "simplecache::ftp://ann:hidden@host/c",
        "1ftp://ann:hidden@h",
        "ftp://ann:hidden[@h/c",
    ):
        (problem,) = problems(checkpoint_path=uri)
        assert "hidden" not in problem.text


def test_checkpoints_that_have_no_place_are_asked_for_in_vain() -> None:
    (problem,) = problems(checkpoint_path=None, checkpoint_every="10min")
    assert str(problem).startswith("checkpoint_every is '10min', but there is no checkpoint_path")
    assert problem.others == ("checkpoint_path",)


def test_a_rank_or_node_that_never_exists_is_refused_as_far_as_that_is_known() -> None:
    faults = ["kill(rank=7, step=1)", "preempt(node=3, step=1)"]
    assert problems(**SEVERAL, nproc_per_node=2, chaos=faults) == []
    assert problems(**SEVERAL, nproc_per_node="gpu", chaos="kill(rank=900, step=1)") == []
    (problem,) = problems(**SEVERAL, nproc_per_node=2, chaos="kill(rank=8, step=1)")
    assert problem.others == ("max_nodes", "nproc_per_node")
    assert "wanted rank 0 to 7" in problem.text


def test_nodes_that_meet_without_a_ledger_cannot_be_cut_from_it() -> None:
    (problem,) = problems(**SEVERAL, chaos="cut(node=1, seconds=1)")
    assert "rdzv_backend 'c10d'" in problem.text
    assert problems(**SEVERAL | {"rdzv_backend": "etcd"}, chaos="cut(node=1, seconds=1)") == []


def test_there_is_a_limit_to_faults() -> None:
    (problem,) = problems(chaos=["slow(rank=0, factor=2)"] * 201)
    assert str(problem) == "chaos has 201 faults; wanted at most 200"
