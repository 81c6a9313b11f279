"""From an operator's parameters to a ``LaunchConfig``, and on to the agent."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import MappingProxyType

import pytest

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.parameters.launch_config import LAUNCH_PARAMETERS, launch_config
from llutil.checkpoints.interval import interval
from llutil.entrypoint import Command
from llutil.errors import ConfigError
from llutil.launcher.config import LaunchConfig
from llutil.std import Std
from llutil.task_link.decoder import Decoder
from llutil.task_link.messages import Spec, encode


def test_numbers_may_come_as_the_text_that_templates_render():
    config = launch_config(
        {
            "nnodes": "2:4",
            "nproc_per_node": "3",
            "max_restarts": "5",
            "grace_period": "1.5",
            "rdzv_endpoint": "h:1",
            "rdzv_configs": {"timeout": "60", "lease_ttl": "2.5", "password": "123"},
            "checkpoint_path": "/checkpoints",
            "checkpoint_every": "100",
            "checkpoint_keep": "5",
        }
    )
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (2, 4, 3)
    assert (config.max_restarts, config.shutdown_timeout) == (5, 1.5)
    assert (interval(config.checkpoint_every), config.checkpoint_keep) == (100, 5)
    options = config.rendezvous_options()
    assert (options["timeout"], options["lease_ttl"], options["password"]) == (60, 2.5, "123")


@pytest.mark.parametrize(
    ("given", "found"), [({}, "auto"), (None, None), ("auto", "auto"), ("90", 90), (1.5, 1.5)]
)
def test_a_hang_timeout_of_none_is_no_default_and_text_may_be_a_number(given, found):
    values = {} if given == {} else {"hang_timeout": given}
    config = launch_config(values)
    assert config.hang_timeout == found
    spec = Spec(config=config, entrypoint=Command("x"), result_limit=1, orphan_log="")
    assert list(Decoder().feed(encode(spec))) == [spec]


def test_the_deprecated_timeout_becomes_an_option():
    config = launch_config({"rdzv_timeout": 60, "rdzv_configs": {"lease_ttl": 5}})
    assert config.rdzv_configs == {"timeout": 60, "lease_ttl": 5}


def test_a_configuration_survives_its_way_to_the_agent():
    config = launch_config(
        {
            "redirects": MappingProxyType({1: Std.ERR}),
            "tee": Std.ALL,
            "metrics_cfg": {"g": "console"},
            "local_ranks_filter": {0, 3},
            "log_dir": Path("/logs"),
            "checkpoint_path": Path("/checkpoints"),
            "checkpoint_every": 100,
        }
    )
    spec = Spec(config=config, entrypoint=Command("x"), result_limit=1, orphan_log="")
    assert list(Decoder().feed(encode(spec))) == [spec]


def test_an_option_that_cannot_be_sent_is_named():
    with pytest.raises(ConfigError, match="rdzv_configs cannot be sent to the agent"):
        launch_config({"rdzv_configs": {"user": object()}})


def test_every_field_of_launch_config_can_be_given_to_the_operator():
    fields = {field.name for field in dataclasses.fields(LaunchConfig)}
    assert fields == {"min_nodes", "max_nodes", *LAUNCH_PARAMETERS.values()}
    parameters = inspect.signature(inspect.unwrap(ElasticLaunchOperator.__init__)).parameters
    assert set(LAUNCH_PARAMETERS) <= set(parameters)


def test_the_operators_defaults_are_the_launchers_but_for_warm_workers_and_few_ranks_in_the_log():
    parameters = inspect.signature(inspect.unwrap(ElasticLaunchOperator.__init__)).parameters
    defaults = {name: parameters[name].default for name in LAUNCH_PARAMETERS}
    assert launch_config(defaults) == LaunchConfig(
        1, 1, 1, start_method="forkserver", local_ranks_filter="auto"
    )
