"""Two nodes whose ranks make a store of their own, as torch's variable asks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.etcd_servers import etcd
from tests.support.node_pair import NodePair
from tests.support.torch_forks import TorchForks

pytestmark = [pytest.mark.launch, pytest.mark.etcd]


def test_rank_0_makes_the_ranks_store_and_all_nodes_find_it(
    tmp_path: Path, torch_forks: TorchForks
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(etcd())
        pair = NodePair(torch_forks, tmp_path, str(server.endpoint))
        stack.callback(pair.close)
        ends = pair.launch(
            "tests.support.collective_functions:all_reduce_without_an_agents_store",
            seconds=120,
            env={"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            start_method="fork",
        )
    values = {rank: value for end in ends for rank, value in end.values.items()}
    assert values == {0: ["False", 0, 2, 11.0], 1: ["False", 1, 2, 11.0]}, ends
