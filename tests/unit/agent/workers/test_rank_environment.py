"""What a rank finds in its environment is what torch's own agent sets."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.agent.server.api import Worker, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from llutil.agent.workers.rank_environment import (
    check_visible_devices,
    line_prefix,
    rank_environment,
)
from llutil.checkpoints.place import OF_THE_AGENT, TIMEOUT
from llutil.errors import ConfigError
from llutil.events.events import Events
from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvousHandler

VISIBLE = "CUDA_VISIBLE_DEVICES"


def group_of(nproc: int, *, virtual: bool) -> WorkerGroup:
    spec = WorkerSpec(
        role="trainer",
        local_world_size=nproc,
        rdzv_handler=SingleNodeRendezvousHandler("run"),
        entrypoint="train",
        max_restarts=3,
        virtual_local_rank=virtual,
    )
    group = WorkerGroup(spec)
    group.workers = [
        Worker(rank, rank, rank, world_size=nproc, role_world_size=nproc) for rank in range(nproc)
    ]
    group.group_rank, group.group_world_size = 0, 1
    group.master_addr, group.master_port = "127.0.0.1", 29500
    return group


def environment(group: WorkerGroup, local_rank: int) -> dict[str, str]:
    return rank_environment(
        group,
        group.workers[local_rank],
        restarts=0,
        error_file=Path("error.json"),
        events="",
        mark="m",
        signals="SIGTERM",
    )


def of_torch(group: WorkerGroup, local_rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    agent = LocalElasticAgent(group.spec, DefaultLogsSpecs("/dev/null"))
    agent._set_local_rank_env(found, local_rank, group.spec)
    return found


@pytest.mark.parametrize("visible", [None, "4,5", " 6 , 7 ", "GPU-aa,MIG-bb/1/0"])
@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("local_rank", [0, 1])
def test_the_local_rank_and_the_devices_are_torchs(
    visible: str | None, virtual: bool, local_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    group = group_of(2, virtual=virtual)
    ours, wanted = environment(group, local_rank), of_torch(group, local_rank)
    assert {name: ours.get(name) for name in ("LOCAL_RANK", VISIBLE)} == {
        name: wanted.get(name) for name in ("LOCAL_RANK", VISIBLE)
    }


def test_too_few_devices_for_virtual_ranks_are_found_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    check_visible_devices(2)
    with pytest.raises(ConfigError, match=r"each of 3 workers .* CUDA_VISIBLE_DEVICES=0,1 has 2"):
        check_visible_devices(3)
    monkeypatch.delenv(VISIBLE)
    check_visible_devices(8)


def test_ranks_with_the_same_virtual_number_have_slots_of_their_own_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(2, virtual=True)
    environments = [environment(group, local_rank) for local_rank in range(2)]
    with Events(folder=tmp_path) as page:
        monkeypatch.setenv("LLUTIL_EVENTS", page.path)
        for local_rank, found in enumerate(environments):
            for name in ("LOCAL_RANK", "LLUTIL_LOCAL_RANK"):
                monkeypatch.setenv(name, found[name])
            with Events.attach(page.path) as attached:
                slot = attached._own_slot()
                assert slot is not None
                slot.report(local_rank + 10, 0)
        assert page.progress() == {0: (10, 0), 1: (11, 0)}


def test_a_prefix_comes_from_the_field_then_torchruns_variable_then_torchs_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", raising=False)
    assert line_prefix(None, "trainer", 5, 1) == line_prefix("", "trainer", 5, 1) == "[trainer1]:"
    monkeypatch.setenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[${rank}]: ")
    assert line_prefix(None, "trainer", 5, 1) == "[5]: "
    assert line_prefix("${role_name}/$user ", "trainer", 5, 1) == "trainer/$user "
    assert line_prefix("${hostname}:", "trainer", 5, 1) == f"{socket.gethostname()}:"


def test_a_launch_inside_a_rank_of_another_job_has_none_of_its_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*OF_THE_AGENT, TIMEOUT):
        monkeypatch.setenv(name, "the outer job's")
    inside = environment(group_of(1, virtual=False), 0)
    assert inside.keys() & set(OF_THE_AGENT) == set()
    assert inside[TIMEOUT] == "the outer job's"


def test_mlflows_own_variable_tells_it_of_which_job_a_run_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = group_of(2, virtual=False)
    monkeypatch.delenv("MLFLOW_RUN_CONTEXT", raising=False)
    given = environment(group, 1)["MLFLOW_RUN_CONTEXT"]
    tags = {"llutil.run_id": "run", "llutil.restart_count": "0", "llutil.world_size": "2"}
    assert json.loads(given) == tags
    # A launch inside a rank of another job has that job's.
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps(tags | {"llutil.run_id": "outer"}))
    assert json.loads(environment(group, 1)["MLFLOW_RUN_CONTEXT"]) == tags


@pytest.mark.parametrize("own", ['{"team": "vision"}', "{}", ""])
def test_a_users_own_tags_for_mlflow_stay(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", own)
    assert environment(group_of(1, virtual=False), 0)["MLFLOW_RUN_CONTEXT"] == own
