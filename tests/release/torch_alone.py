"""The wheel with torch and without Airflow: a launch of two ranks, torchrun's handlers, and the
command ``llutil``.

Run it with the interpreter of such an environment; it says ``ok`` at its end.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from llutil.launcher.launch_agent import LaunchConfig, launch_agent


def total(base: int) -> float:
    """The sum of rank + base over all ranks, by a collective, and this rank."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    value = torch.tensor(float(rank + base))
    dist.all_reduce(value)
    dist.destroy_process_group()
    return value.item() + rank


def main() -> None:
    """Fail with an AssertionError if anything is wrong."""
    assert find_spec("airflow") is None, "Airflow is installed here"
    for method in ("spawn", "forkserver"):
        config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, start_method=method)
        results = launch_agent(config, total, [10])
        assert results == {0: 21.0, 1: 22.0}, (method, results)

    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry

    # A handler of that name is known; only its parameters are still missing.
    for name in ("etcd-v3", "served", "zeus-adapter"):
        assert name in rendezvous_handler_registry._registry, name

    import llutil.ledgers.zookeeper  # noqa: F401  (with kazoo)

    command = Path(sys.executable).with_name("llutil")
    helped = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "doctor" in helped.stdout, helped.stdout
    listed = subprocess.run([command, "ps", "--json"], capture_output=True, text=True, check=True)
    assert listed.stderr == "", listed.stderr
    script = Path(sys.argv[1], "script.py")
    script.write_text("import os; os.write(1, f'rank {os.environ[\"RANK\"]}\\n'.encode())\n")
    ran = subprocess.run(
        [command, "run", "--nproc-per-node", "2", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"rank 0", "rank 1"} <= {line.split("] ")[-1] for line in ran.stdout.splitlines()}, ran
    print("ok")


if __name__ == "__main__":
    main()
