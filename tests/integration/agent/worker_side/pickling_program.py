"""A user's program that launches a function of its own; it is run as ``__main__``.

The function pickles objects of the program's classes in every way that training code does.
"""

from __future__ import annotations

import dataclasses
import enum
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Conf:
    """Of the program, and named in the function."""

    lr: float = 0.1


class Kind(enum.Enum):
    """As above."""

    ADAM = "adam"


class Numbers:
    """A data set."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return index * 10


class Argument:
    """Not named in the function: it is there because an argument is one."""

    text = "came along"


def helper(rate: float) -> Conf:
    """What a pool calls."""
    return Conf(2 * rate)


def text_of(argument: Argument) -> str:
    """As above."""
    return argument.text


def pools(argument: Argument) -> dict[str, Any]:
    """What pools of processes return, by how their processes are started."""
    found: dict[str, Any] = {}
    for method in ("fork", "spawn", "forkserver"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            calls = pool.submit(helper, 1.5), pool.submit(text_of, argument)
            found[method] = [call.result() for call in calls]
    return found


def train(folder: str, argument: Argument) -> Any:
    """What a rank does."""
    import torch
    from torch import distributed

    torch.save({"conf": Conf(0.5), "kind": Kind.ADAM, "argument": argument}, f"{folder}/saved.pt")
    distributed.init_process_group("gloo")
    gathered: list[Any] = [None]
    distributed.all_gather_object(gathered, Conf(0.25))
    distributed.destroy_process_group()
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, multiprocessing_context="spawn")
    return {"gathered": gathered, "loaded": [int(one) for one in loader], "conf": Conf(3.0)}


if __name__ == "__main__":
    import torch

    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    folder = sys.argv[1]
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=1, max_restarts=0)
    (returned,) = launch_agent(config, train, [folder, Argument()]).values()
    assert returned == {"gathered": [Conf(0.25)], "loaded": [0, 10], "conf": Conf(3.0)}, returned
    saved = torch.load(Path(folder, "saved.pt"), weights_only=False)
    assert saved["conf"] == Conf(0.5), saved
    assert saved["kind"] is Kind.ADAM
    assert saved["argument"].text == "came along"
    print("all of it")
