"""The CPUs of ranks are those that torch's own binding would choose."""

from __future__ import annotations

import json

import pytest
from torch.numa import binding

from llutil.launcher.cpu_binding import main
from llutil.launcher.numa_options import AFFINITY_MODES


@pytest.mark.parametrize("mode", AFFINITY_MODES)
def test_each_mode_binds_as_torch_does(
    mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The places of GPUs and CPUs are stand-ins: two GPUs at node 0, which has four CPUs. Where
    torch 2.13 speaks of a GPU, 2.14 speaks of a device.
    """
    word = "device" if hasattr(binding, "_get_device_count") else "gpu"
    for name, found in {
        f"_get_numa_node_index_for_{word}_index": lambda **_index: 0,
        f"_get_{word}_count": lambda: 2,
        "_get_allowed_logical_cpu_indices_for_numa_node": lambda numa_node_index: {0, 1, 2, 3},
        "_get_socket_index_for_numa_node": lambda numa_node_index: 0,
        "_get_numa_node_indices_for_socket_index": lambda socket_index: {0},
        "_get_logical_cpu_indices_sharing_same_physical_core_as": lambda logical_cpu_index: {
            logical_cpu_index
        },
        "_get_logical_cpus_sharing_same_max_level_cache_as": lambda logical_cpu_index: {
            logical_cpu_index // 2 * 2,
            logical_cpu_index // 2 * 2 + 1,
        },
    }.items():
        assert hasattr(binding, name)
        monkeypatch.setattr(binding, name, found)
    main(mode, 2)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    apart = [[0, 1], [2, 3]]
    assert said == (apart if mode in {"exclusive", "core-complex"} else [[0, 1, 2, 3]] * 2)


def test_a_torch_that_speaks_of_devices_not_of_gpus_is_asked_in_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch 2.14 has given the argument another name."""

    def find(*, device_index: int, numa_options: binding.NumaOptions) -> set[int]:
        return {device_index}

    monkeypatch.setattr(binding, "_get_logical_cpus_to_bind_to", find)
    main("node", 2)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == [[0], [1]]
