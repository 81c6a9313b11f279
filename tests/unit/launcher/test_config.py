"""``LaunchConfig`` is the seed's: names, order, defaults, and nobody changes it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig as TorchConfig
from torch.numa.binding import AffinityMode
from torch.numa.binding import NumaOptions as TorchNumaOptions

from llutil import launcher
from llutil.errors import ConfigError
from llutil.launcher.launch_agent import LaunchConfig, elastic_launch, launch_agent
from llutil.launcher.numa_options import AFFINITY_MODES, NumaOptions
from llutil.std import Std

REQUIRED = dataclasses.MISSING
FIRST_SIXTEEN: list[tuple[str, Any]] = [
    ("min_nodes", REQUIRED),
    ("max_nodes", REQUIRED),
    ("nproc_per_node", REQUIRED),
    ("run_id", ""),
    ("role", "default_role"),
    ("rdzv_endpoint", ""),
    ("rdzv_backend", "etcd"),
    ("rdzv_configs", {}),
    ("rdzv_timeout", -1),
    ("max_restarts", 3),
    ("monitor_interval", 30),
    ("start_method", "spawn"),
    ("log_dir", None),
    ("redirects", Std.NONE),
    ("tee", Std.NONE),
    ("metrics_cfg", {}),
]


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def test_the_first_sixteen_fields_have_their_names_order_and_defaults() -> None:
    found = [(field.name, default_of(field)) for field in dataclasses.fields(LaunchConfig)]
    assert found[:16] == FIRST_SIXTEEN


def test_the_first_sixteen_may_be_given_by_position_and_no_other() -> None:
    values: list[Any] = [
        1,
        2,
        3,
        "r",
        "role",
        "h:1",
        "c10d",
        {"timeout": 1},
        -1,
        5,
        6,
        "fork",
        "/l",
        1,
        2,
        {},
    ]
    config = LaunchConfig(*values)
    assert [getattr(config, name) for name, _ in FIRST_SIXTEEN] == values
    with pytest.raises(TypeError):
        LaunchConfig(*values, None)  # type: ignore[call-arg]
    keyword_only = [field.name for field in dataclasses.fields(LaunchConfig) if field.kw_only]
    assert [field.name for field in dataclasses.fields(LaunchConfig)][16:] == keyword_only


def test_two_configurations_share_no_default() -> None:
    one, two = LaunchConfig(1, 1, 1), LaunchConfig(1, 1, 1)
    assert one.rdzv_configs is not two.rdzv_configs
    assert one.metrics_cfg is not two.metrics_cfg


def test_a_configuration_cannot_be_changed_but_replaced_copied_and_sent() -> None:
    config = LaunchConfig(1, 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run_id = "x"  # type: ignore[misc]
    assert dataclasses.replace(config, run_id="x").run_id == "x"
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config


def test_the_callers_rendezvous_options_are_not_changed() -> None:
    given = {"last_call_timeout": 1}
    config = LaunchConfig(1, 1, 1, rdzv_configs=given)
    assert config.rendezvous_options() == {
        "timeout": 900,
        "last_call_timeout": 1,
        "lease_ttl": 10,
        "growth_timeout": 60,
        "namespace": "llutil",
    }
    assert given == {"last_call_timeout": 1}
    assert config.rdzv_configs is given


@pytest.mark.parametrize("key", ["password", "secret", "passwrod"])
def test_a_configuration_does_not_show_a_secret(key: str) -> None:
    given = {key: "hidden-word", "user": "ann"}
    config = LaunchConfig(1, 1, 1, rdzv_configs=given, rdzv_endpoint="ann:hidden-word@store:1")
    for one in (config, dataclasses.replace(config, run_id="x"), dataclasses.asdict(config)):
        assert "hidden" not in repr(one)
        assert "'ann'" in repr(one)
    assert config.rdzv_configs == given == {key: "hidden-word", "user": "ann"}


@pytest.mark.parametrize("wrong", [{"tiemout": 1}, {"timeout": "soon"}, {"password": b"hidden"}])
def test_an_error_about_rendezvous_options_does_not_show_a_secret(wrong: dict[str, Any]) -> None:
    configs = {"password": "hidden-word", "lease_tll": "hidden-too", **wrong}
    with pytest.raises(ConfigError) as raised:
        LaunchConfig(1, 1, 1, rdzv_configs=configs).rendezvous_options()
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    frames = [frame for frame in shown.stack if frame.filename != __file__]
    shown.stack = traceback.StackSummary.from_list(frames)
    assert len(frames) > 1
    assert "hidden" not in "".join(shown.format())


def test_a_timeout_of_the_callers_own_is_kept() -> None:
    config = LaunchConfig(1, 1, 1, rdzv_configs={"timeout": "5"})
    assert config.rendezvous_options()["timeout"] == 5


def test_the_legacy_timeout_warns_where_it_is_written_and_becomes_an_option() -> None:
    with pytest.warns(DeprecationWarning, match="rdzv_configs={'timeout': seconds}") as caught:
        config = LaunchConfig(1, 1, 1, rdzv_timeout=7)
    assert caught[0].filename == __file__
    assert config.rendezvous_options()["timeout"] == 7


def test_the_shutdown_timeout_is_torchs_variable_if_nobody_gives_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    assert LaunchConfig(1, 1, 1).shutdown_timeout == TorchConfig(1, 1, 1).shutdown_timeout == 30
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "7")
    none: Any = None
    for given in ({}, {"shutdown_timeout": none}, {"shutdown_timeout": 3}):
        ours, stock = LaunchConfig(1, 1, 1, **given), TorchConfig(1, 1, 1, **given)
        assert ours.shutdown_timeout == stock.shutdown_timeout
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="TORCH_ELASTIC_SHUTDOWN_TIMEOUT is 'soon'"):
        LaunchConfig(1, 1, 1)
    assert LaunchConfig(1, 1, 1, shutdown_timeout=3).shutdown_timeout == 3


def test_every_field_of_torchs_configuration_is_here() -> None:
    """``logs_specs`` is an object of torch's; what its class takes are fields here."""
    stock = {field.name for field in dataclasses.fields(TorchConfig)}
    ours = {field.name: default_of(field) for field in dataclasses.fields(LaunchConfig)}
    assert stock - set(ours) == {"logs_specs"}
    assert set(inspect.signature(DefaultLogsSpecs).parameters) <= set(ours)
    assert ours["signals_to_handle"] == TorchConfig(1, 1, 1).signals_to_handle


def test_torchs_numa_options_become_values_that_need_no_torch() -> None:
    given: Any = TorchNumaOptions(AffinityMode.CORE_COMPLEX, True)
    config = LaunchConfig(1, 1, 1, numa_options=given)
    assert config.numa_options == NumaOptions("core-complex", True)
    assert type(config.numa_options.affinity_mode) is str
    short: Any = "node"
    assert LaunchConfig(1, 1, 1, numa_options=short).numa_options == NumaOptions("node")
    assert {mode.value for mode in AffinityMode} == set(AFFINITY_MODES)


def test_launch_agent_has_the_seeds_signature() -> None:
    parameters = inspect.signature(launch_agent).parameters
    assert list(parameters) == ["config", "entrypoint", "args", "ice_events"]
    assert [p.default for p in parameters.values()][:3] == [inspect.Parameter.empty] * 3
    assert parameters["ice_events"].default is None


def test_launching_in_two_steps_takes_the_same_things() -> None:
    parameters = inspect.signature(elastic_launch).parameters
    assert list(parameters) == ["config", "entrypoint", "ice_events"]


def test_the_launcher_exports_what_it_promises() -> None:
    assert {name for name in dir(launcher) if not name.startswith("_")} >= {
        "Events",
        "LaunchConfig",
        "Std",
        "elastic_launch",
        "worker",
    }
    for name in launcher.__all__:
        assert getattr(launcher, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'launch'"):
        launcher.launch  # noqa: B018


def test_a_configuration_is_written_without_torch_or_airflow() -> None:
    code = (
        "import sys\n"
        "from llutil.launcher import Events, LaunchConfig, Std, elastic_launch, worker\n"
        "from llutil.launcher.launch_agent import launch_agent\n"
        "from llutil.launcher.config_checks import problems_of\n"
        "problems_of(LaunchConfig(1, 1, 1, tee={0: Std.ALL}))\n"
        "print(sorted({'torch', 'airflow', 'grpc', 'etcd3', 'kazoo', 'numpy'} & "
        "set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
