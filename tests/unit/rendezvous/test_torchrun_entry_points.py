"""An option means the same after torchrun's ``--rdzv-conf`` and in ``launch_agent``'s
``rdzv_configs``.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch.distributed.elastic.rendezvous import RendezvousParameters

from llutil.backends.backend import Backend
from llutil.backends.table import ETCD, ZEUS_ADAPTER
from llutil.errors import ConfigError
from llutil.launcher import build_agent
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of as config_problems
from llutil.launcher.request import LaunchRequest
from llutil.rendezvous import torchrun_entry_points
from llutil.rendezvous.build_handler import build_driver
from llutil.rendezvous.protocol.parameters import ProtocolParameters

BACKENDS = pytest.mark.parametrize("backend", [ETCD, ZEUS_ADAPTER], ids=lambda one: one.name)
HANDLERS = {ETCD: torchrun_entry_points.etcd_v3, ZEUS_ADAPTER: torchrun_entry_points.zeus_adapter}


def under_torchrun(backend: Backend, options: dict[str, Any]) -> ProtocolParameters:
    parameters = RendezvousParameters(
        backend=backend.torchrun_name,
        endpoint="127.0.0.1:1",
        run_id="r",
        min_nodes=1,
        max_nodes=2,
        local_addr="127.0.0.1",
        **options,
    )
    handler = HANDLERS[backend]()(parameters)
    assert handler.get_backend() == backend.torchrun_name
    rules: ProtocolParameters = handler._new_driver()._parameters
    return rules


def under_launch_agent(
    backend: Backend, options: dict[str, Any], **fields: Any
) -> ProtocolParameters:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=2,
        nproc_per_node=1,
        run_id="r",
        rdzv_backend=backend.name,
        rdzv_endpoint="127.0.0.1:1",
        rdzv_configs=options,
        local_addr="127.0.0.1",
        **fields,
    )
    if problems := config_problems(config):
        raise ConfigError(problems)
    request = LaunchRequest(config=config, entrypoint="true", args=(), events=None, sys_path=())
    return build_driver(build_agent.rendezvous_config(request, 1))._parameters


@BACKENDS
@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ((0, "0", 0.0), 0.0),
        ((30, 30.0, "30", "30.0", None, ""), 30.0),
        ((1.5, "1.5"), 1.5),
    ],
)
def test_last_call_means_the_same_everywhere(
    backend: Backend, values: tuple[Any, ...], meant: float
) -> None:
    for value in values:
        options = {"last_call_timeout": value}
        assert under_torchrun(backend, options).last_call == meant
        assert under_launch_agent(backend, options).last_call == meant


@BACKENDS
def test_what_may_be_the_rest_of_a_password_is_not_shown(backend: Backend) -> None:
    with pytest.raises(ConfigError, match="--rdzv-conf has something behind 'password'") as error:
        under_torchrun(backend, {"password": "hunter2", "rest": "5word"})
    assert not {"hunter2", "rest", "5word"}.intersection(re.findall(r"\w+", str(error.value)))


def test_only_a_job_with_a_place_for_checkpoints_saves_before_it_grows() -> None:
    assert not under_torchrun(ETCD, {}).saves_before_growth
    assert not under_launch_agent(ETCD, {}).saves_before_growth
    assert under_launch_agent(ETCD, {}, checkpoint_path="/saved").saves_before_growth


@BACKENDS
def test_all_times_mean_the_same_as_text(backend: Backend) -> None:
    options = {"timeout": 60, "last_call_timeout": 2, "lease_ttl": 4.5, "growth_timeout": 300}
    texts = {key: str(value) for key, value in options.items()}
    found = [under_torchrun(backend, texts), under_launch_agent(backend, texts)]
    found += [under_torchrun(backend, options), under_launch_agent(backend, options)]
    for rules in found:
        assert (rules.timeout, rules.last_call, rules.lease_ttl) == (60, 2, 4.5)
        assert (rules.growth_timeout, rules.saved_limit) == (300, 330)


@BACKENDS
@pytest.mark.parametrize("read", [under_torchrun, under_launch_agent])
def test_what_means_nothing_is_refused_by_both(backend: Backend, read: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read(backend, {"lease_tll": 3, "timeout": "soon", "lease_ttl": "0"})
    assert [problem.text.partition(",")[0] for problem in caught.value.problems] == [
        "has 'lease_tll'",
        "has 'timeout': 'soon'; wanted a positive number of seconds",
        "has 'lease_ttl': '0'; wanted a positive number of seconds",
    ]
