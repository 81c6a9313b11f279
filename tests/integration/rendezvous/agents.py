"""What a node's agent process does in these tests: ``launch_agent``, and a line of JSON on how that
ended.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llutil.system.job_mark import MARK_VARIABLE

if TYPE_CHECKING:
    from llutil.launcher.config import LaunchConfig

__all__ = ["all_reduce_until_told", "answer_when_told", "launch"]

_STEP = 0.02  # seconds between two looks of a worker


def launch(
    name: str, folder: str, entrypoint: str, args: list[Any], config: dict[str, Any]
) -> None:
    """Be the agent of the node ``name``."""
    logging.basicConfig(
        level=logging.INFO, format="%(relativeCreated)d %(name)s %(levelname)s %(message)s"
    )
    os.environ["NODE"] = name
    from llutil.launcher.launch_agent import LaunchConfig

    began = time.monotonic()
    end: dict[str, Any]
    try:
        values = _launch(LaunchConfig(**config), entrypoint, args)
        end = {"kind": "values", "values": {str(rank): value for rank, value in values.items()}}
    except BaseException as error:
        traceback.print_exc()
        end = {"kind": type(error).__name__, "text": str(error)}
        end["retryable"] = getattr(error, "retryable", None)
    end["seconds"] = time.monotonic() - began
    Path(folder, f"{name}.end.tmp").write_text(json.dumps(end))
    Path(folder, f"{name}.end.tmp").rename(Path(folder, f"{name}.end"))


def _launch(config: LaunchConfig, entrypoint: str, args: list[Any]) -> dict[int, Any]:
    """Launch as an Airflow task's agent does: torch is imported here, and a fork server is forked
    from this process and need not import it again.
    """
    from llutil.agent_process.prefork import prefork_server, should_prefork
    from llutil.launcher.launch_agent import launch_agent
    from llutil.launcher.request import LaunchRequest
    from llutil.launcher.run import run

    if not should_prefork(config):
        return launch_agent(config, entrypoint, args)
    server = prefork_server(config, os.environ)
    assert server, "a second thread has started"
    request = LaunchRequest(
        config=config,
        entrypoint=entrypoint,
        args=tuple(args),
        events=None,
        sys_path=tuple(sys.path),
        mark=os.environ[MARK_VARIABLE],
        fork_server=server,
    )
    return run(request)


def answer_when_told(folder: str) -> dict[str, int]:
    """A worker that is a function: it returns or raises when a file of ``worker``'s says so."""
    from tests.integration.rendezvous.worker import main

    if status := main(folder):
        raise ValueError(f"no such digit: {status}")
    return {"answer": 42}


def all_reduce_until_told(folder: str) -> float:
    """A worker that adds a one of every rank, over and over, until all see that the file
    ``succeed`` is there.
    """
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from tests.integration.rendezvous.worker import say

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    values = torch.ones(2)
    dist.all_reduce(values)
    say(folder, total=values[0].item(), restarts=int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
    while True:
        values = torch.tensor([1.0, float(Path(folder, "succeed").exists())])
        dist.all_reduce(values)
        if values[1] > 0:
            break
        time.sleep(_STEP)
    total = values[0].item()
    dist.destroy_process_group()
    return total
