"""One process of the launch benchmark: launches of one kind, one after the other, with everything
imported before.

``python _launches.py {"side": "ours", ...}`` prints a JSON list of seconds, one for each run. It is
a script of its own, with next to nothing at its top, since stock torch's workers import the
caller's main module again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def no_op() -> int:
    """A worker that has torch, as every worker of the other side does, and does nothing."""
    import torch  # noqa: F401 - what is measured

    return int(os.environ["RANK"])


def once_killed(folder: str) -> float:
    """When this rank's code began, in a round that follows one whose rank 0 was killed when all
    ranks ran.
    """
    import torch  # noqa: F401 - what is measured

    began = time.monotonic()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return began
    Path(folder, f"up-{rank}").touch()
    if rank == 0:
        while len(list(Path(folder).glob("up-*"))) < world:
            time.sleep(0.005)
        time.sleep(0.3)  # for everything to have come to rest
        Path(folder, "killed").write_text(repr(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)
    raise AssertionError("nobody noticed")


def _ours(order: dict[str, Any], stack: ExitStack) -> Callable[..., dict[int, Any]]:
    import torch.distributed.elastic.agent.server.api  # noqa: F401 - before the clock runs

    import llutil.agent.torch_agent  # noqa: F401 - as above
    from llutil.launcher import warm_workers
    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    keep = [warm_workers] if order["method"] == "forkserver" else []
    config = LaunchConfig(
        1,
        1,
        order["nproc"],
        start_method=order["method"],
        monitor_interval=order["interval"],
        max_restarts=1,
    )

    def launch(entrypoint: Any, *args: Any) -> dict[int, Any]:
        while keep:  # in the first launch's time: it is the cold one
            stack.enter_context(keep.pop()())
        return launch_agent(config, entrypoint, list(args))

    return launch


def _stock(order: dict[str, Any]) -> Callable[..., dict[int, Any]]:
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    if order["method"] == "forkserver" and order["preload"]:
        import multiprocessing

        multiprocessing.set_forkserver_preload(["torch", "torch.distributed.launcher.api"])

    def launch(entrypoint: Any, *args: Any) -> dict[int, Any]:
        # A new one for each launch: stock torch changes it, and closes the run id for good.
        config = LaunchConfig(
            1,
            1,
            order["nproc"],
            run_id=f"{os.getpid()}-{time.monotonic_ns()}",
            rdzv_endpoint="localhost:0",
            rdzv_backend="c10d",
            start_method=order["method"],
            monitor_interval=order["interval"],
            max_restarts=1,
        )
        found: dict[int, Any] = launch_agent(config, entrypoint, list(args))
        return found

    return launch


def _measure(order: dict[str, Any], launch: Callable[..., dict[int, Any]], run: int) -> float:
    nproc = order["nproc"]
    if order["task"] == "no-op":
        began = time.monotonic()
        found = launch(no_op)
        took = time.monotonic() - began
        assert found == {rank: rank for rank in range(nproc)}, found
        return took
    folder = Path(order["folder"], f"{os.getpid()}-{run}")
    folder.mkdir()
    again = launch(once_killed, str(folder))
    assert len(again) == nproc, again
    return max(again.values()) - float((folder / "killed").read_text())


def _main() -> None:
    order = json.loads(sys.argv[1])
    sys.path.append(str(Path(__file__).parents[2]))
    with ExitStack() as stack:
        launch = _ours(order, stack) if order["side"] == "ours" else _stock(order)
        times = [_measure(order, launch, run) for run in range(order["runs"])]
    print(json.dumps(times))


if __name__ == "__main__":
    _main()
