"""What "cpu", "gpu", "xpu", "auto" and a plugin's name count.

The devices are stand-ins: torch's own functions that look for them are replaced, and for whole
processes torch itself is.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.run import determine_local_world_size

from llutil.errors import ConfigError
from llutil.events.events import CAPACITY
from llutil.launcher.device_count import accelerator_count, worker_count
from llutil.launcher.output_checks import MOST_WORKERS

FAKE_TORCH = """
from types import SimpleNamespace
xpu = SimpleNamespace(is_available=lambda: {xpus} > 0, device_count=lambda: {xpus})
accelerator = xpu
print("a library greets")
"""
REGISTRATION = """
def _get_custom_mod_func(name):
    return {"is_available": lambda: True, "device_count": lambda: 5}[name]
"""


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three XPUs, and five devices of torch's kind for plugins."""
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="xpu")
    )
    plugin = SimpleNamespace(is_available=lambda: True, device_count=lambda: 5)
    monkeypatch.setattr(torch, "privateuseone", plugin, raising=False)


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(("wanted", "count"), [("xpu", 3), ("privateuseone", 5), ("auto", 3)])
def test_a_kind_counts_what_torchrun_counts(wanted: str, count: int) -> None:
    assert accelerator_count(wanted) == determine_local_world_size(wanted) == count


@pytest.mark.parametrize("wanted", ["xpu", "gpu", "auto"])
def test_where_there_is_none_the_count_is_zero(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert accelerator_count(wanted) == 0


def test_a_kind_that_no_plugin_has_registered_is_not_known() -> None:
    assert accelerator_count("npu") is None
    assert accelerator_count("privateuseone") is None
    with pytest.raises(ValueError, match="Unsupported"):
        determine_local_world_size("npu")


@pytest.fixture
def xpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Counting processes import a stand-in of torch that sees so many XPUs, and a plugin "npu"."""
    files = {
        "torch/__init__.py": FAKE_TORCH.format(xpus=request.param),
        "torch/_C.py": "def _get_privateuse1_backend_name(): return 'npu'",
        "torch/utils/__init__.py": "",
        "torch/utils/backend_registration.py": REGISTRATION,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("xpus")
@pytest.mark.parametrize(
    ("xpus", "wanted", "count"), [(4, "xpu", 4), (0, "npu", 5)], indirect=["xpus"]
)
def test_a_node_gets_a_worker_for_each_device(wanted: str, count: int) -> None:
    assert worker_count(wanted) == count


@pytest.mark.usefixtures("xpus")
@pytest.mark.parametrize("xpus", [0], indirect=True)
def test_a_kind_of_which_the_host_has_none_is_a_bad_configuration() -> None:
    with pytest.raises(ConfigError, match="nproc_per_node is 'xpu', but torch sees no xpu"):
        worker_count("xpu")
    with pytest.raises(ConfigError, match="'hpu', which the torch of this host does not know"):
        worker_count("hpu")


def test_cpus_are_counted_without_another_process() -> None:
    assert worker_count("cpu") == determine_local_world_size("cpu") == len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("xpus")
@pytest.mark.parametrize("xpus", [0], indirect=True)
@pytest.mark.parametrize("wanted", ["cpu", "auto"])
def test_a_host_of_more_cpus_than_a_node_has_workers_wants_a_number(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MOST_WORKERS)))
    assert worker_count(wanted) == MOST_WORKERS == CAPACITY
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(384)))
    with pytest.raises(ConfigError, match=f"is '{wanted}', which is 384 on this host; a node has"):
        worker_count(wanted)
