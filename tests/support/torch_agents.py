"""torch's own ``launch_agent`` and agent in threads of one process, on one ledger in memory.

``TorchJob`` makes nodes. A ``TorchNode`` runs all of torch's code but for its workers: a test plays
them (``succeeds``, ``fails``, ...), and waits for what the agent does with them.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.launcher import api

from llutil.ledgers.memory_store import MemoryStore
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.driver.round_store import RoundStore
from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvousHandler
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Member
from tests.support.memory_rendezvous import RUN, FaultyLedger

__all__ = ["MemoryHandlers", "TorchJob", "TorchNode", "until"]

SOON = 20.0  # seconds within which whatever is waited for must happen
_HERE = "127.0.0.1"
_POLL = 0.01  # seconds between two looks of an agent at its workers


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class MemoryHandlers:
    """Makes handlers that meet in one store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = FaultyLedger(self.store, lambda: None)
        self.ledgers: dict[str, FaultyLedger] = {}

    def handler(self, name: str, least: int, most: int, **options: Any) -> LedgerRendezvousHandler:
        """One more handler, of a node of that name."""
        settings = {
            "last_call": 0.0,
            "lease_ttl": 10.0,
            "timeout": 30.0,
            "retry_pause": 0.02,
            **options,
        }
        rules = ProtocolParameters(
            min_nodes=least, max_nodes=most, max_restarts=None, runs_again=False, **settings
        )
        profile = Member(node="", name=name, role="worker", nproc=1, host="here", address=_HERE)

        def open_ledger(on_change: Callable[[], None]) -> FaultyLedger:
            self.ledgers[name] = FaultyLedger(self.store, on_change)
            return self.ledgers[name]

        driver = Driver(rules, profile, RUN, open_ledger, lambda: RoundStore(_HERE))
        return LedgerRendezvousHandler("memory", "run", lambda: driver)

    def keys(self, scope: str) -> list[str]:
        """What is there, without the run's own prefix."""
        view = self.ledger.read(scope, deadline=time.monotonic() + SOON)
        return [one.key.removeprefix(RUN.root) for one in view.records]

    def members(self) -> list[str]:
        """The nodes that are there, in order of arrival: the leader first."""
        return [key.partition("/")[2].partition(".")[0] for key in self.keys(RUN.members)]

    def marker(self) -> dict[str, Any]:
        """How the newest generation ended."""
        view = self.ledger.read(RUN.log, deadline=time.monotonic() + SOON)
        newest = max(one.key for one in view.records if one.key.endswith(".marker"))
        found: dict[str, Any] = json.loads(view.get(newest).value)  # type: ignore[union-attr]
        return found


class _Agent(SimpleElasticAgent):
    """torch's agent, whose workers are played by a node."""

    def __init__(self, spec: WorkerSpec, node: TorchNode) -> None:
        super().__init__(spec, exit_barrier_timeout=node.barrier)
        self._node = node

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._node.result = None
        self._node.started.put(worker_group.group_world_size)
        return dict.fromkeys(range(worker_group.spec.local_world_size), 0)

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        self._node.stopped.put(worker_group.group_world_size)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        rank = worker_group.workers[0].global_rank
        result = self._node.result
        return result(rank) if result is not None else RunResult(state=WorkerState.HEALTHY)

    def _shutdown(self, death_sig: Any = None, timeout: Any = None) -> None:
        self._node.agent_ended.set()

    def _exit_barrier(self) -> None:
        self._node.at_barrier.set()
        super()._exit_barrier()
        if self._node.in_barrier is not None:
            raise self._node.in_barrier


class TorchNode:
    """One node: torch's ``launch_agent`` in a thread, until ``ended``."""

    def __init__(
        self, job: TorchJob, name: str, least: int, most: int, restarts: int, barrier: float
    ) -> None:
        self.job, self.name, self.barrier = job, name, barrier
        self.started: queue.Queue[int] = queue.Queue()
        """The worlds in which its workers were started, in nodes."""
        self.stopped: queue.Queue[int] = queue.Queue()
        """The worlds in which its workers were stopped."""
        self.result: Callable[[int], RunResult] | None = None
        """What its workers have come to, by the first one's rank. None while they run."""
        self.in_barrier: Exception | None = None
        """What its agent raises while it waits for the others."""
        self.at_barrier, self.agent_ended = threading.Event(), threading.Event()
        self.values: dict[int, Any] | None = None
        self.error: BaseException | None = None
        self.config = api.LaunchConfig(
            min_nodes=least,
            max_nodes=most,
            nproc_per_node=1,
            run_id="run",
            rdzv_backend="memory",
            rdzv_configs={"node": name, "timeout": 30},
            max_restarts=restarts,
            monitor_interval=_POLL,
        )
        self.thread = threading.Thread(target=self._launch, name=f"node-{name}", daemon=True)

    def _launch(self) -> None:
        try:
            self.values = self.job.launch(self)
        except BaseException as error:
            self.error = error.with_traceback(None)

    # What its workers do.

    def succeeds(self) -> None:
        """Its workers return their rank."""
        self.result = lambda rank: RunResult(WorkerState.SUCCEEDED, {rank: rank})

    def fails(self, text: str) -> None:
        """Its worker raises an error of that text."""
        file = self.job.folder / f"{self.name}-{time.monotonic_ns()}.json"
        extra = {"py_callstack": f"Traceback ...\n{text}", "timestamp": "1"}
        file.write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
        failed = ProcessFailure(local_rank=0, pid=4711, exitcode=1, error_file=str(file))
        self.result = lambda rank: RunResult(WorkerState.FAILED, failures={rank: failed})

    def breaks(self, error: Exception) -> None:
        """Its agent raises ``error`` when it looks at its workers."""

        def look(rank: int) -> RunResult:
            raise error

        self.result = look

    # What is waited for.

    def starts(self) -> int:
        """Wait until workers are started; in a world of how many nodes."""
        return self.started.get(timeout=SOON)

    def runs_on(self) -> bool:
        """Whether its workers run, and were not told to stop, after several looks of its agent."""
        looks = itertools.count()
        enough = threading.Event()

        def look(rank: int) -> RunResult:
            if next(looks) == 5:
                enough.set()
            return RunResult(WorkerState.HEALTHY)

        self.result = look
        enough.wait(SOON)
        return self.stopped.empty() and self.started.empty() and enough.is_set()

    def ends(self) -> TorchNode:
        """Wait for the end of ``launch_agent``."""
        self.thread.join(SOON)
        assert not self.thread.is_alive(), f"node {self.name} has not ended"
        return self

    def ends_with(self, kind: type[BaseException]) -> str:
        """Wait for the end of ``launch_agent``, by such an error; its text."""
        assert isinstance(self.ends().error, kind), repr(self.error)
        return str(self.error)


class TorchJob(MemoryHandlers):
    """Nodes with agents of torch's own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.folder = folder
        self.nodes: dict[str, TorchNode] = {}
        self.launch: Callable[[TorchNode], dict[int, Any]] = lambda node: api.launch_agent(
            node.config, "train", []
        )
        """What a node's thread does."""
        self._sizes: tuple[int, int] = (2, 2)
        self._options: dict[str, Any] = {}
        patch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")  # torch sets it, for ever
        patch.setattr(api, "LocalElasticAgent", self.agent)
        patch.setattr(api.rdzv_registry, "get_rendezvous_handler", self._handler)

    def _handler(self, params: RendezvousParameters) -> LedgerRendezvousHandler:
        name = params.config["node"]
        return self.handler(name, params.min_nodes, params.max_nodes, **self._options)

    def agent(self, spec: WorkerSpec, **_: Any) -> _Agent:
        """The agent of the node whose thread this is."""
        name = threading.current_thread().name.removeprefix("node-")
        return _Agent(spec, self.nodes[name])

    def node(self, name: str, *, restarts: int = 0, barrier: float = 0.1) -> TorchNode:
        """Start one more node of the same ``--nnodes``."""
        least, most = self._sizes
        node = self.nodes[name] = TorchNode(self, name, least, most, restarts, barrier)
        node.thread.start()
        return node

    def nodes_of(
        self,
        names: str,
        nnodes: tuple[int, int],
        *,
        restarts: Sequence[int] = (0, 0, 0),
        **options: Any,
    ) -> list[TorchNode]:
        """Nodes that run in one round, whose letters are ``names``; the first one leads."""
        self._sizes = nnodes
        self._options = {"last_call": 0.0 if nnodes[0] == len(names) else 30.0, **options}
        nodes = []
        for name, restart in zip(names, restarts, strict=False):
            nodes.append(self.node(name, restarts=restart))
            until(lambda: len(self.members()) == len(nodes))
        for node in nodes:
            assert node.starts() == len(names)
        return nodes

    @contextmanager
    def open(self) -> Iterator[TorchJob]:
        """In the end all nodes have ended."""
        try:
            yield self
        finally:
            for node in self.nodes.values():
                node.breaks(InterruptedError("the test is over"))
            for node in self.nodes.values():
                node.ends()
