"""``run_under_chaos``: runs a training under faults, as a platform does that retries; checks it.

Each node is a process of its own, as in a real job. A node that was preempted is launched again.
This module may import the launcher, the server of a served ledger, and its own room.
"""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llutil.chaos.by_seed import DEFAULT_KINDS, random_faults
from llutil.chaos.fault_texts import all_faults
from llutil.chaos.faults import Fault, Hang, Slow
from llutil.chaos.journal import JOURNAL
from llutil.errors import ConfigError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.ledgers.served.server import LedgerServer
from llutil.serialization.functions import pickle_call
from llutil.system.send_signal import send_signal
from llutil.testing.history import Round, problems_of_samples, problems_of_steps, rounds_in
from llutil.testing.leftovers import left_behind, processes_with
from llutil.testing.order import Order, Outcome

__all__ = ["ChaosRun", "run_under_chaos"]

_MARK = "LLUTIL_CHAOS_TEST"
"""What every process of a test under chaos has, so that those it leaves behind are found."""
_JOB = "training"
# Seconds.
_LEASE, _LAST_CALL, _HANG, _GONE, _PAUSE = 4, 1, 5.0, 10.0, 0.02
# The most characters of a node's output that an error shows.
_SHOWN = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosRun:
    """A training that has come to its end. ``values`` is what its ranks returned, ``faults`` are
    those that it was to be struck by. ``rounds`` are what its ranks did, ``launches`` how often a
    node was launched, ``output`` what each launch printed, and ``checkpoints`` the job's folder.
    """

    values: dict[int, Any]
    faults: Sequence[Fault]
    rounds: Sequence[Round]
    launches: int
    output: Sequence[str]
    checkpoints: Path

    @property
    def struck(self) -> list[str]:
        """The faults that have struck, as text, in the order of their rounds."""
        return [text for one in self.rounds for rank in one.ranks for text in rank.struck]


def run_under_chaos(
    function: Callable[..., Any] | str,
    args: Sequence[Any] = (),
    *,
    folder: Path,
    steps: int,
    chaos: Any = None,
    seed: int = 0,
    nodes: int = 1,
    seconds: float = 120.0,
    popen: Callable[..., Any] = subprocess.Popen,
    **config: Any,
) -> ChaosRun:
    """Run ``function`` with ``args`` on all ranks under faults, to its end after ``steps`` steps.

    :param folder: a new folder for all that the run writes.
    :param chaos: the faults; by default three that ``seed`` chooses.
    :param nodes: how many nodes there are, all on this host.
    :param seconds: how long it may take.
    :param config: more of ``LaunchConfig``. By default a node has two ranks, and the job saves
        after each second step.
    :raises AssertionError: the training did not come to its end, or lost steps or samples, or did
        more than ``checkpoint_every`` steps twice for a fault; a fault did not strike; something is
        left behind. The text lists all of it, and what the nodes printed.
    :raises ConfigError: the configuration cannot work.
    """
    run = _Run(function, args, folder, nodes, popen)
    launch = run.config(steps, chaos, seed, config)
    try:
        values = run.to_its_end(time.monotonic() + seconds)
    finally:
        run.close()
    result = ChaosRun(
        values=values,
        faults=run.faults,
        rounds=rounds_in(run.journal),
        launches=len(run.outputs),
        output=run.told(),
        checkpoints=folder / "checkpoints" / _JOB,
    )
    every = launch.checkpoint_every if isinstance(launch.checkpoint_every, int) else None
    problems = [
        *problems_of_steps(result.rounds, steps, every),
        *problems_of_samples(result.rounds),
        *_wrong_strikes(run.faults, result.struck),
        *left_behind(run.mark, run.pids, run.temporary, result.checkpoints, _GONE),
    ]
    if problems:
        raise AssertionError(run.report("the training went wrong:", problems))
    return result


def _wrong_strikes(faults: Sequence[Fault], struck: list[str]) -> Iterator[str]:
    wanted = Counter(str(one) for one in faults if not isinstance(one, Slow))
    found = Counter(struck)
    for text in wanted.keys() | found.keys():
        if wanted[text] != found[text]:
            yield f"{text} struck {found[text]} times; wanted {wanted[text]}"


class _Run:
    """The processes of one training."""

    def __init__(
        self,
        function: Callable[..., Any] | str,
        args: Sequence[Any],
        folder: Path,
        nodes: int,
        popen: Callable[..., Any],
    ) -> None:
        text = isinstance(function, str)
        self._entrypoint = function if isinstance(function, str) else pickle_call(function, args)
        self._args = list(args) if text else []
        self._folder, self._nodes, self._popen = folder, nodes, popen
        self._stack = ExitStack()
        self._running: dict[int, tuple[Any, Path]] = {}
        self._config: LaunchConfig
        self.mark = f"{_MARK}={secrets.token_hex(8)}"
        self.faults: tuple[Fault, ...] = ()
        self.pids: list[int] = []
        self.outputs: list[Path] = []
        self.journal, self.temporary = folder / "journal", folder / "tmp"
        for one in (self.journal, self.temporary):
            one.mkdir(parents=True)

    def config(self, steps: int, chaos: Any, seed: int, more: dict[str, Any]) -> LaunchConfig:
        """Settle the configuration of all nodes."""
        nproc = more.get("nproc_per_node", 2)
        if chaos is None:
            kinds = (*DEFAULT_KINDS, "preempt", *(["cut"] if self._nodes > 1 else []))
            chaos = random_faults(
                seed=seed, ranks=self._nodes * nproc, nodes=self._nodes, steps=steps, kinds=kinds
            )
        values: dict[str, Any] = {
            "min_nodes": self._nodes,
            "max_nodes": self._nodes,
            "nproc_per_node": nproc,
            "run_id": _JOB,
            "checkpoint_path": str(self._folder / "checkpoints"),
            "checkpoint_every": 2,
            "log_dir": str(self._folder / "logs"),
            "chaos": chaos,
            **more,
        }
        if self._nodes > 1 and "rdzv_endpoint" not in values:
            values |= self._served(more)
        config = LaunchConfig(**values)
        if problems := problems_of(config):
            raise ConfigError(problems)
        texts: Any = config.chaos  # it was checked
        self.faults = tuple(all_faults(texts))
        if "hang_timeout" not in more and any(isinstance(one, Hang) for one in self.faults):
            config = replace(config, hang_timeout=_HANG)
        if "max_restarts" not in more:
            config = replace(config, max_restarts=len(self.faults))
        self._config = config
        return config

    def _served(self, more: dict[str, Any]) -> dict[str, Any]:
        server = LedgerServer("127.0.0.1", 0)
        self._stack.callback(server.close)
        given = more.get("rdzv_configs", {})
        timeouts = {"lease_ttl": _LEASE, "last_call_timeout": _LAST_CALL}
        return {
            "rdzv_backend": "served",
            "rdzv_endpoint": f"127.0.0.1:{server.port}",
            "rdzv_configs": {"serves": False, **timeouts, **given},
        }

    def to_its_end(self, deadline: float) -> dict[int, Any]:
        """Launch all nodes, and again those that were preempted; what all ranks returned."""
        values: dict[int, Any] = {}
        for node in range(self._nodes):
            self._launch(node)
        while self._running:
            for node, (process, order) in [*self._running.items()]:
                if process.poll() is None:
                    continue
                del self._running[node]
                outcome = self._outcome(order, process.returncode)
                if outcome.stopped:
                    self._launch(node)
                elif outcome.error:
                    raise AssertionError(self.report("the training failed:", [outcome.error]))
                values |= outcome.values
            if time.monotonic() > deadline:
                text = f"node {', '.join(map(str, self._running))} has not ended in time"
                raise AssertionError(self.report("the training did not end:", [text]))
            time.sleep(_PAUSE)
        return dict(sorted(values.items()))

    def _launch(self, node: int) -> None:
        number = len(self.outputs)
        if number > self._nodes + len(self.faults):
            raise AssertionError(self.report("nodes were stopped again and again", []))
        order = self._folder / f"launch-{number}.order"
        config = replace(self._config, node_index=node) if self._nodes > 1 else self._config
        told = Order(
            config=config, entrypoint=self._entrypoint, args=self._args, path=list(sys.path)
        )
        order.write_bytes(pickle.dumps(told))
        self.outputs.append(order.with_suffix(".out"))
        name, _, value = self.mark.partition("=")
        places = {JOURNAL: str(self.journal), "TMPDIR": str(self.temporary), name: value}
        with self.outputs[-1].open("wb") as output:
            process = self._popen(
                [sys.executable, "-u", "-m", "llutil.testing.node", str(order)],
                stdin=subprocess.DEVNULL,
                stdout=output.fileno(),
                stderr=output.fileno(),
                pass_fds=(),
                env={**os.environ, **places},
                start_new_session=True,
            )
        self.pids.append(process.pid)
        self._running[node] = process, order

    @staticmethod
    def _outcome(order: Path, status: int) -> Outcome:
        try:
            content = order.with_suffix(".outcome").read_bytes()
            told: Outcome = pickle.loads(content)  # noqa: S301 - of our own process
        except FileNotFoundError:
            return Outcome(error=f"its process ended with {status}")
        return told

    def told(self) -> list[str]:
        """What each launch has printed."""
        return [path.read_text(errors="replace") for path in self.outputs]

    def report(self, what: str, problems: Sequence[str]) -> str:
        """The text of an error."""
        lines = [what, *(f"  - {one}" for one in problems)]
        lines.append(f"faults: {', '.join(map(str, self.faults)) or 'none'}")
        for number, text in enumerate(self.told()):
            lines += [f"----- launch {number} printed:", text[-_SHOWN:]]
        return "\n".join(lines)

    def close(self) -> None:
        """End what runs yet: nothing, unless the training failed."""
        if self._running:
            for pid, start in processes_with(self.mark).items():
                send_signal(pid, start, signal.SIGKILL)
            for process, _ in self._running.values():
                process.kill()
                with suppress(subprocess.TimeoutExpired):  # it is stuck in the kernel
                    process.wait(_GONE)
        self._stack.close()
