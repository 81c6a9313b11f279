"""What torchrun's options, its variables and ours mean for a launch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from torch.distributed import run as torchrun
from torch.distributed.argparse_util import env

from llutil.command_line.main import parser
from llutil.command_line.own_options import OF_TORCHRUN, option_of, own_fields
from llutil.command_line.run_config import entrypoint_of, launch_config_of
from llutil.entrypoint import Command, Module, Script
from llutil.errors import ConfigError
from llutil.launcher.config import LaunchConfig
from llutil.std import Std

Parse = Callable[..., argparse.Namespace]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    for name in ("LLUTIL_RUN_ID", "PYTHON_EXEC", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)

    def parse(text: str, **variables: str) -> argparse.Namespace:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return parser().parse_args(["run", *text.split()])

    return parse


def wrong(given: argparse.Namespace) -> str:
    with pytest.raises(ConfigError) as error:
        launch_config_of(given)
    return str(error.value)


ALONE: dict[str, Any] = {"min_nodes": 1, "max_nodes": 1, "rdzv_endpoint": "", "run_id": ""}

# What torch's tests of torchrun check (2.13), and what its help says.
MEANT: list[tuple[str, dict[str, Any]]] = [
    ("train.py", {**ALONE, "nproc_per_node": 1, "max_restarts": 0, "role": "default"}),
    ("--standalone train.py", ALONE),
    ("--standalone --nnodes 1:4 train.py", ALONE),
    ("--standalone --rdzv-id mine train.py", {**ALONE, "run_id": "mine"}),
    ("--nproc-per-node 4 train.py", {"nproc_per_node": 4}),
    ("--nproc_per_node auto train.py", {"nproc_per_node": "auto"}),
    ("--nproc_per_node=gpu train.py", {"nproc_per_node": "gpu"}),
    (
        "--nnodes 1:2 --rdzv-backend etcd --rdzv-endpoint e:1,f:2 --rdzv-id a train.py",
        {
            "min_nodes": 1,
            "max_nodes": 2,
            "rdzv_backend": "etcd",
            "rdzv_endpoint": "e:1,f:2",
            "run_id": "a",
        },
    ),
    (
        "--nnodes 2 --rdzv_backend etcd-v3 --rdzv_endpoint e:1 --rdzv_id a train.py",
        {"min_nodes": 2, "max_nodes": 2, "rdzv_backend": "etcd"},
    ),
    (
        "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint h:29400 train.py",
        {"rdzv_backend": "c10d", "rdzv_endpoint": "h:29400", "run_id": "none"},
    ),
    (
        "--nnodes 2 --node-rank 1 --master-addr h --master-port 5 train.py",
        {"rdzv_backend": "static", "rdzv_endpoint": "h:5", "rdzv_configs": {"rank": 1}},
    ),
    (
        "--nnodes 2 --node_rank 1 --master_addr fe80::1 train.py",
        {"rdzv_backend": "static", "rdzv_endpoint": "[fe80::1]:29500"},
    ),
    (
        "--nnodes 1 --master-addr localhost --master-port 5 train.py",
        {"rdzv_backend": "static", "rdzv_endpoint": "localhost:5", "rdzv_configs": {"rank": 0}},
    ),
    (
        "--rdzv-conf timeout=60,last_call_timeout=1 --rdzv-backend etcd --rdzv-endpoint e:1 "
        "--rdzv-id a train.py",
        {"rdzv_configs": {"timeout": "60", "last_call_timeout": "1"}},
    ),
    ("--role trainer train.py", {"role": "trainer"}),
    ("--monitor-interval 7 --max-restarts 2 train.py", {"monitor_interval": 7, "max_restarts": 2}),
    ("--start-method forkserver train.py", {"start_method": "forkserver"}),
    ("--log-dir /l -r 3 -t 0:1,2:2 train.py",
     {"log_dir": "/l", "redirects": Std.ALL, "tee": {0: Std.OUT, 2: Std.ERR}}),
    ("--local-ranks-filter 0,2 train.py", {"local_ranks_filter": {0, 2}}),
    ("--local-ranks-filter auto train.py", {"local_ranks_filter": "auto"}),
    ("--duplicate-stdout-filters a,b,,c --duplicate-stderr-filters d train.py",
     {"duplicate_stdout_filters": ["a", "b,c"], "duplicate_stderr_filters": ["d"]}),
    ("--virtual-local-rank train.py", {"virtual_local_rank": True}),
    ("--signals-to-handle SIGTERM,SIGUSR1 train.py", {"signals_to_handle": "SIGTERM,SIGUSR1"}),
    ("--local-addr 10.0.0.1 train.py", {"local_addr": "10.0.0.1"}),
    ("--event-log-handler console train.py", {"event_log_handler": "console"}),
    ("--shutdown-timeout 7 train.py", {"shutdown_timeout": 7}),
    ("--logs-specs default train.py", {}),
    # Ours.
    ("--grace-period 7.5 train.py", {"shutdown_timeout": 7.5}),
    (
        "--checkpoint-path /c --checkpoint-every 100 --checkpoint-keep 5 --resume always train.py",
        {"checkpoint_path": "/c", "checkpoint_every": 100, "checkpoint_keep": 5,
         "resume": "always"},
    ),
    ("--checkpoint_every 10min --checkpoint_path /c t.py", {"checkpoint_every": "10min"}),
    ("--hang-timeout none train.py", {"hang_timeout": None}),
    ("--hang-timeout 600 train.py", {"hang_timeout": 600.0}),
    ("--hang-timeout auto train.py", {"hang_timeout": "auto"}),
    ("--exit-timeout 5 --restart-grace 0.5 t.py", {"exit_timeout": 5.0, "restart_grace": 0.5}),
    ("--metrics-cfg llutil=console train.py", {"metrics_cfg": {"llutil": "console"}}),
    ("--node-index 3 --node-label gpu-7 train.py", {"node_index": 3, "node_label": "gpu-7"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), MEANT, ids=[text for text, _ in MEANT])
def test_options(parse: Parse, text: str, meant: dict[str, Any]) -> None:
    config = launch_config_of(parse(text))
    assert {name: getattr(config, name) for name in meant} == meant


def test_variables_are_defaults(parse: Parse) -> None:
    variables = {
        "PET_NNODES": "1:2",
        "PET_NPROC_PER_NODE": "4",
        "PET_RDZV_BACKEND": "etcd",
        "PET_RDZV_ENDPOINT": "e:1",
        "PET_RDZV_ID": "a",
        "PET_MONITOR_INTERVAL": "1",
        "PET_START_METHOD": "fork",
        "PET_MODULE": "1",
        "PET_CHECKPOINT_PATH": "/c",
        "PET_GRACE_PERIOD": "9",
    }
    given = parse("--nproc-per-node 2 my.module", **variables)
    config = launch_config_of(given)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (1, 2, 2)
    assert (config.rdzv_backend, config.rdzv_endpoint, config.run_id) == ("etcd", "e:1", "a")
    assert (config.start_method, config.checkpoint_path) == ("fork", "/c")
    assert config.shutdown_timeout == 9.0
    assert entrypoint_of(given, {}) == Module("my.module")


def test_a_run_id_in_the_environment_names_the_job(parse: Parse) -> None:
    given = parse("--nnodes 2 --rdzv-backend etcd --rdzv-endpoint e:1 t.py", LLUTIL_RUN_ID="mine")
    assert not launch_config_of(given).run_id  # the launch takes it from there


STARTED: list[tuple[str, dict[str, str], Any]] = [
    ("train.py --lr 1 --nnodes 9", {}, Script("train.py", ("--lr", "1", "--nnodes", "9"))),
    ("train -h", {}, Script("train", ("-h",))),
    ("-m pkg.train a", {}, Module("pkg.train", ("a",))),
    ("--module pkg.train", {}, Module("pkg.train")),
    ("--no-python ./train.sh a", {}, Command("./train.sh", ("a",))),
    ("--run-path /a/train.py b", {}, Script("/a/train.py", ("b",))),
    ("--run-path --no-python /a/train.py b", {}, Script("/a/train.py", ("b",))),
    ("train.py a", {"PYTHON_EXEC": "/p"}, Command("/p", ("-u", "train.py", "a"))),
    ("-m train a", {"PYTHON_EXEC": "/p"}, Command("/p", ("-u", "-m", "train", "a"))),
]


@pytest.mark.parametrize(("text", "environ", "entrypoint"), STARTED)
def test_what_is_started(
    parse: Parse, text: str, environ: dict[str, str], entrypoint: object
) -> None:
    assert entrypoint_of(parse(text), environ) == entrypoint


WRONG = [
    ("--nnodes 0 t.py", "--nnodes is 0; wanted at least 1"),
    ("--nnodes 3:2 t.py", "--nnodes is 2, below"),
    ("--nnodes 1:2:3 t.py", "--nnodes is '1:2:3'; wanted a number, or MIN:MAX"),
    ("--nnodes two t.py", "--nnodes is 'two'; wanted a number, or MIN:MAX"),
    ("--nnodes 2 --standalone t.py", "--nnodes is 2:2, and --standalone is for one node"),
    ("--nproc-per-node all,gpu t.py", "--nproc-per-node is 'all,gpu'; wanted a number"),
    ("--nproc-per-node 0 t.py", "--nproc-per-node is 0; wanted 1 to 256 workers a node"),
    ("--max-restarts -1 t.py", "--max-restarts is -1; wanted 0 or more"),
    ("-r 4 t.py", "--redirects is '4'; wanted 0 (none), 1 (stdout)"),
    ("-t 0:1:2 t.py", "--tee is '0:1:2'; wanted"),
    ("--local-ranks-filter a t.py", "--local-ranks-filter is 'a'; wanted local ranks with commas"),
    ("--rdzv-conf timeout --rdzv-id a t.py", "--rdzv-conf has 'timeout' without a value"),
    ("--rdzv-conf tiemout=3 --rdzv-id a t.py", "--rdzv-conf has 'tiemout', which"),
    (
        "--rdzv-backend etcd --rdzv-endpoint e:1 --rdzv-conf password=a,b=c --rdzv-id a t.py",
        "--rdzv-conf has something behind 'password' that backend 'etcd' does not know",
    ),
    ("--no-python -m t", "--no-python and --module exclude each other: a module needs Python"),
    ("--logs-specs mine t.py", "--logs-specs is 'mine': log files are the agent's own here"),
    ("--rdzv-backend etcd-v2 t.py", "--rdzv-backend is 'etcd-v2': torch's etcd backends speak"),
    ("--rdzv-backend mine t.py", "--rdzv-backend is 'mine'; wanted one of c10d, etcd, served"),
    (
        "--nnodes 2 --rdzv-backend etcd --rdzv-endpoint e:1 t.py",
        "--rdzv-id is missing: it names the job in the store",
    ),
    ("--nnodes 2 --rdzv-backend etcd --rdzv-id a t.py", "--rdzv-endpoint is empty, but up to 2"),
    ("--checkpoint-keep x t.py", "--checkpoint-keep is 'x'; wanted a whole number"),
    ("--exit-timeout x t.py", "--exit-timeout is 'x'; wanted a number"),
    ("--grace-period x t.py", "--grace-period is 'x'; wanted a number"),
    ("--hang-timeout soon t.py", "--hang-timeout is 'soon'; wanted a positive number"),
    ("--metrics-cfg llutil t.py", "--metrics-cfg has 'llutil' without a value"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=[text for text, _ in WRONG])
def test_what_is_wrong_is_told_by_the_options_name(parse: Parse, text: str, problem: str) -> None:
    assert problem in wrong(parse(text))


def test_all_that_is_wrong_is_told_at_once(parse: Parse) -> None:
    told = wrong(parse("--nnodes x -r 9 --logs-specs mine --checkpoint-every soon t.py"))
    assert told.startswith("4 things are wrong:")


def test_every_field_of_a_configuration_has_an_option(parse: Parse) -> None:
    given = vars(parse("t.py"))
    names = {field.name for field in fields(LaunchConfig)}
    assert set(OF_TORCHRUN) <= names
    assert {OF_TORCHRUN.get(name, name) for name in names} <= set(given)
    # torch 2.14 has one of them too, so its place among the options is another one there.
    assert sorted(own_fields()) == sorted(names.intersection(given).difference(OF_TORCHRUN))
    assert option_of("checkpoint_path") == "--checkpoint-path"


def test_the_help_says_what_the_fields_docstrings_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["run", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: llutil run [-h] [--nnodes NNODES]" in text
    assert "How many committed checkpoints are kept; older ones are removed. (default: 3)" in text
    assert "examples: llutil run --nproc-per-node 4 train.py" in text


def test_faults_may_be_given_one_by_one_and_then_their_variable_does_not_count(
    parse: Parse,
) -> None:
    one, two = "kill(rank=0,step=5)", "oom(rank=0,step=7)"
    given = parse(f"--chaos {one} --chaos={two} train.py")
    assert launch_config_of(given).chaos == (one, two)
    variable = "kill(rank=0, step=1), hang(rank=0, step=2)"
    assert launch_config_of(parse("train.py", PET_CHAOS=variable)).chaos == (variable,)
    assert launch_config_of(parse(f"--chaos {one} train.py", PET_CHAOS=variable)).chaos == (one,)
    assert "--chaos has 'kil(rank=0)': there is no fault 'kil'" in wrong(
        parse("--chaos kil(rank=0) train.py")
    )


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("--log-line-prefix-template ${rank}: train.py", "${rank}:"),
        ("--log_line_prefix_template=${rank} train.py", "${rank}"),
        ("train.py", ""),
    ],
)
def test_an_option_that_a_newer_torchrun_has_too_still_makes_its_field(
    text: str, prefix: str, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.14 has this one, as it is here."""
    ours = torchrun.get_args_parser

    def newer() -> argparse.ArgumentParser:
        names = ("--log-line-prefix-template", "--log_line_prefix_template")
        made = ours()
        if not any(names[0] in action.option_strings for action in made._actions):
            made.add_argument(*names, action=env, type=str, default="")
        return made

    monkeypatch.setattr(torchrun, "get_args_parser", newer)
    assert launch_config_of(parse(text)).log_line_prefix_template == prefix
