"""Jobs of several agents, each a process of its own, and what a test does to them."""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.agent_socket.folder import remove_stale as remove_stale_sockets
from llutil.backends.endpoints import Endpoint
from llutil.errors import RendezvousError
from llutil.events.page_file import remove_stale as remove_stale_pages
from llutil.ledgers.protocol import Ledger, Record
from llutil.rendezvous.protocol.record_codec import decode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.system.job_mark import MARK_VARIABLE
from tests.support.leftovers import MARK
from tests.support.stores import Store
from tests.support.torch_forks import Forked, TorchForks

__all__ = ["Agent", "Job", "kept_values", "until"]

TTL = 3
"""Seconds of a lease in these tests: short, and still long enough for a machine that does much
else.
"""
_SOON = 60.0  # seconds within which what should happen at once must happen
_WORKER = str(Path(__file__).parent / "worker.py")
_GLOO = "tests.integration.rendezvous.agents:all_reduce_until_told"
_TRAINING = "tests.support.training:train"
_FUNCTION = "tests.integration.rendezvous.agents:answer_when_told"


def until(what: str, happened: Callable[[], Any], seconds: float = _SOON) -> Any:
    """Look again and again, until ``happened`` gives something true; give that."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)
    return found


class Agent:
    """One node's agent process, with its workers."""

    def __init__(self, name: str, folder: Path, process: Forked) -> None:
        self.name = name
        self.process = process
        self._end = folder / f"{name}.end"
        self._frozen: list[psutil.Process] = []

    @property
    def pids(self) -> list[int]:
        """The agent and all that it started, workers included."""
        with suppress(psutil.NoSuchProcess):
            agent = psutil.Process(self.process.pid)
            return [agent.pid, *(child.pid for child in agent.children(recursive=True))]
        return []

    @property
    def told(self) -> str:
        """What it has printed."""
        with suppress(FileNotFoundError):
            return self.process.output.read_text(errors="replace")
        return ""

    def kill(self) -> None:
        """SIGKILL to the agent alone; what it leaves behind is its guardian's to end."""
        self.process.signal(signal.SIGKILL)
        assert self.process.ended(_SOON)

    def vanish(self) -> None:
        """SIGKILL to the agent, its guardian and its workers at the same time, as when their host
        is gone. Its memory goes with it, and so its event page and its socket.
        """
        self.freeze()
        for process in self._frozen:
            process.kill()
        self._frozen = []
        assert self.process.ended(_SOON)
        remove_stale_pages()
        remove_stale_sockets()

    def freeze(self) -> None:
        """Stop the agent and all that it started in their tracks."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        self._frozen = [psutil.Process(pid) for pid in self.pids]

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def ends(self, kind: str = "values", seconds: float = _SOON) -> dict[str, Any]:
        """Wait until it has ended in this way: with "values", or the name of an error. What it
        said.
        """
        assert self.process.ended(seconds), f"{self.name} still runs after {seconds:g} s"
        end: dict[str, Any] = json.loads(self._end.read_text())
        assert end["kind"] == kind, end
        return end


def kept_values(agent: Agent, error: str = "RendezvousError") -> dict[str, Any]:
    """What ranks returned, as the agent has kept it in the files that its error names."""
    files = re.findall(r"it is kept on \S+ in (\S+): import pickle", agent.ends(error)["text"])
    return {Path(file).name: pickle.loads(Path(file).read_bytes()) for file in files}


class Job:
    """Nodes that meet under one run id. Their files are in ``folder``."""

    def __init__(
        self,
        torch_forks: TorchForks,
        folder: Path,
        store: Store,
        *endpoints: Endpoint,
        run_id: str = "job",
        namespace: str = "llutil",
        **config: Any,
    ) -> None:
        self.run_id = run_id
        self.namespace = namespace
        self.store = store
        self.endpoints = endpoints
        self.agents: list[Agent] = []
        self._torch_forks = torch_forks
        self.folder = folder
        self._config = {"rdzv_backend": store.backend, **config}

    def node(
        self,
        name: str,
        *,
        gloo: bool = False,
        function: bool = False,
        trains: dict[str, Any] | None = None,
        script: str = "",
        **config: Any,
    ) -> Agent:
        """Start an agent. Its workers are scripts; or functions that use gloo, or that return and
        raise, or the training that takes these arguments.
        """
        options: dict[str, Any] = {"lease_ttl": TTL, "last_call_timeout": 1, "timeout": 90}
        options |= self.store.options
        if self.store.has_namespaces:
            options["namespace"] = self.namespace
        uses_torch = gloo or trains is not None
        merged: dict[str, Any] = {
            "min_nodes": 1,
            "max_nodes": 4,
            "nproc_per_node": 2 if uses_torch else 1,
            "run_id": self.run_id,
            "rdzv_endpoint": ",".join(str(endpoint) for endpoint in self.endpoints),
            "start_method": "forkserver" if uses_torch else "spawn",
            "log_dir": str(self.folder / "logs"),
            "shutdown_timeout": 5,
            # So that whatever happens to these jobs is heard, and not found by looking.
            "monitor_interval": 1000,
            **self._config,
            **config,
        }
        merged["rdzv_configs"] = (
            options | self._config.get("rdzv_configs", {}) | config.get("rdzv_configs", {})
        )
        entrypoint = script or (_GLOO if gloo else _FUNCTION if function else _WORKER)
        if trains is not None:
            entrypoint = script or _TRAINING
        args = {
            "name": name,
            "folder": str(self.folder),
            "entrypoint": entrypoint,
            "args": [str(self.folder), *(trains or {}).values()],
            "config": merged,
        }
        env = {name: os.environ[name] for name in (MARK, "TMPDIR")}
        if uses_torch:
            env[MARK_VARIABLE] = secrets.token_hex(8)
        output = self.folder / f"{name}.out"
        call = "tests.integration.rendezvous.agents:launch"
        agent = Agent(name, self.folder, self._torch_forks.fork(call, args, output, env))
        self.agents.append(agent)
        return agent

    def import_ahead(self, *modules: str) -> None:
        """Have workers of nodes that start later find these modules imported."""
        self._torch_forks.import_ahead(*modules)

    # What workers do.

    def workers(self, **wanted: Any) -> list[dict[str, Any]]:
        """What workers have said of themselves, of those with these values."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "workers").read_text().splitlines()
            found = [json.loads(line) for line in lines]
            return [one for one in found if all(one[key] == wanted[key] for key in wanted)]
        return []

    def runs(
        self, *names: str, after: int = 0, seconds: float = _SOON, **wanted: Any
    ) -> list[dict[str, Any]]:
        """Wait for a round in which exactly these nodes have workers, as these themselves say.

        ``after`` is how many workers had said something before. A round is told by its store.
        """

        def complete() -> list[dict[str, Any]]:
            said = self.workers(**wanted)[after:]
            stores = list(dict.fromkeys(one["store"] for one in said))
            for store in reversed(stores):
                crew = [one for one in said if one["store"] == store]
                if {one["node"] for one in crew} == set(names) and len(crew) == crew[0]["world"]:
                    return sorted(crew, key=lambda one: int(one["rank"]))
            return []

        crew: list[dict[str, Any]] = until(f"a round of {', '.join(names)}", complete, seconds)
        assert [one["rank"] for one in crew] == list(range(len(crew)))
        return crew

    def succeed(self, name: str = "") -> None:
        """Have all workers succeed, or those of one node; those that come later too."""
        (self.folder / (f"succeed-{name}" if name else "succeed")).touch()

    def fail(self, name: str) -> None:
        """Have one worker of that node fail, once."""
        (self.folder / f"fail-{name}").touch()

    def again(self) -> None:
        """Forget what workers did and were told: the next life begins."""
        for name in ("succeed", "workers"):
            with suppress(FileNotFoundError):
                (self.folder / name).unlink()

    # What is in the store.

    def ledger(self) -> Ledger:
        """A ledger of the test's own, to be closed by it."""
        return self.store.ledger(*self.endpoints, namespace=self.namespace)

    def records(self, scope: str) -> tuple[Record, ...]:
        """What is in the run's folder ``members``, ``log``, ..., in order of arrival."""
        ledger = self.ledger()
        try:
            root = RecordKeys(self.run_id).root
            return ledger.read(f"{root}{scope}/", deadline=time.monotonic() + 10).records
        except RendezvousError:
            return ()
        finally:
            ledger.close()

    def members(self, count: int) -> list[Agent]:
        """Wait until so many nodes have joined; their agents, the leader first."""
        records = until(
            f"{count} members",
            lambda: found if len(found := self.records("members")) == count else None,
        )
        pids = [int(decode(one.key, one.value).name.split("-")[-2]) for one in records]
        return [next(one for one in self.agents if one.process.pid == pid) for pid in pids]

    # Endings.

    def told(self) -> str:
        """What the agents printed, for the report of a test that failed."""
        return "\n".join(
            f"----- {agent.name} (pid {agent.process.pid})\n{agent.told[-6000:]}"
            for agent in self.agents
        )

    def close(self) -> None:
        """End what is left of it."""
        for agent in self.agents:
            agent.thaw()
            agent.process.close()
