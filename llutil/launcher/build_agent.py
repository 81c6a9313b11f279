"""From a sound request to an agent that can run: its parts, made in the order in which they need
each other.

What is made here is given back by the caller's ``ExitStack``, in the opposite order. Nothing runs
yet, but a fork server, a guardian and, with torch's own backends, a connection. This module imports
torch through the agent.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llutil.backends.table import BACKENDS, STATIC
from llutil.entrypoint import Entrypoint
from llutil.errors import ConfigError
from llutil.events.events import Events, remove_stale_pages
from llutil.launcher.request import LaunchRequest
from llutil.launcher.shared_forkserver import kept_server
from llutil.launcher.torch_errors import translated
from llutil.system.gc_pause import gc_paused

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import WorkerSpec

    from llutil.agent.base_agent import Agent
    from llutil.agent.start_methods.forkserver_client import ForkServer, ServerProcess
    from llutil.agent.start_methods.spawn_and_fork import Starter
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["assemble"]

_log = logging.getLogger(__name__)


def assemble(
    request: LaunchRequest,
    entrypoint: Entrypoint,
    direct: Callable[[], Any] | None,
    stack: ExitStack,
) -> tuple[Agent, RendezvousConfig]:
    """The agent for ``request``, and where it meets others. ``direct`` is the function itself,
    where workers are forked.

    :raises ConfigError: torch or this machine does not know what the configuration asks for.
    :raises RendezvousError: a backend of torch's own cannot be reached.
    """
    with gc_paused():
        from torch.distributed.elastic.agent.server.api import WorkerSpec

        from llutil.agent import metrics
        from llutil.agent.base_agent import AgentJob
        from llutil.agent.event_loop import EventLoop
        from llutil.agent.guardian.client import Guardian
        from llutil.agent.interruptible_call import interruptible
        from llutil.agent.ledger_agent import LedgerAgent
        from llutil.agent.observer import TerminalObserver
        from llutil.agent.output.log_files import LogFolder, LogPlan
        from llutil.agent.stop_signals import StopSignals
        from llutil.agent.torch_agent import TorchBackendAgent
        from llutil.agent.worker_side.work_order import WorkOrder
        from llutil.launcher.device_count import worker_count
        from llutil.rendezvous.build_handler import driver_for, handler_for

    config = request.config
    _check_handler_of_events(config.event_log_handler)
    metrics.configure(config.metrics_cfg)
    nproc = worker_count(config.nproc_per_node)
    rendezvous = _rendezvous(request, nproc)
    shown = frozenset(config.local_ranks_filter or ())
    logs = LogFolder(
        LogPlan(config.log_dir, config.redirects, config.tee, shown), rendezvous.run_id
    )
    loop = stack.enter_context(EventLoop())
    signals = stack.enter_context(StopSignals(loop))
    request.begin()
    kept = _kept(request, nproc, stack)
    mark = request.mark or (kept[1] if kept else uuid.uuid4().hex)
    guardian = Guardian(mark, loop)
    stack.callback(guardian.close)
    # Only now: should this process be killed, there is somebody to remove the page.
    events = request.events or _page(stack)
    host = request.host or TerminalObserver()
    if kept:
        starter: Starter = kept[0]
    else:
        starter = _starter(
            config.start_method,
            direct,
            inherited=lambda: loop.fds() | guardian.fds() | host.fds(),
            nproc=nproc,
            mark=mark,
            server=request.server,
        )
        stack.callback(starter.close)
    with translated(rendezvous):
        # torch's c10d connects here; its embedded cousin needs no thread for what takes no time.
        handler = (
            handler_for(rendezvous)
            if rendezvous.embedded
            else interruptible(lambda: handler_for(rendezvous), loop, signals)
        )
    driver = driver_for(rendezvous) if rendezvous.has_ledger else None
    if driver is None:
        stack.callback(_leave, handler, signals)
    master_addr, master_port = _static_master(rendezvous)
    spec: WorkerSpec = WorkerSpec(
        role=config.role,
        local_world_size=nproc,
        rdzv_handler=handler,
        entrypoint=entrypoint.name,
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        master_addr=master_addr,
        master_port=master_port,
        local_addr=config.local_addr,
        event_log_handler=config.event_log_handler,
    )
    job = AgentJob(
        name=entrypoint.name,
        order=WorkOrder(
            entrypoint=entrypoint,
            sys_path=request.sys_path,
            result_limit=request.result_limit,
            arrays=request.arrays,
        ),
        mark=mark,
        grace_period=config.shutdown_timeout,
        exit_timeout=config.exit_timeout,
        logs=logs,
        events=events,
    )
    parts: dict[str, Any] = {
        "starter": starter,
        "guardian": guardian,
        "loop": loop,
        "host": host,
        "signals": signals,
    }
    if rendezvous.hosted:
        from llutil.agent.hosted_agent import HostedAgent

        return HostedAgent(spec, job, handler=handler, **parts), rendezvous
    if driver is None:
        return TorchBackendAgent(spec, job, **parts), rendezvous
    agent = LedgerAgent(spec, job, driver=driver, **parts)
    stack.callback(agent.leave)
    return agent, rendezvous


def _rendezvous(request: LaunchRequest, nproc: int) -> RendezvousConfig:
    from llutil.rendezvous.config import RendezvousConfig

    config = request.config
    return RendezvousConfig(
        backend=BACKENDS[config.rdzv_backend],
        endpoint=config.rdzv_endpoint,
        run_id=request.run_id,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        local_addr=config.local_addr,
        options=config.rendezvous_options(),
        role=config.role,
        nproc=nproc,
        max_restarts=config.max_restarts,
        token=config.rerun_token,
        index=config.node_index,
        label=config.node_label,
    )


def _page(stack: ExitStack) -> Events:
    """A page of the job's own; those of jobs that were killed before they could remove theirs go on
    this occasion.
    """
    for path in remove_stale_pages():
        _log.info("removed %s, left by a process that is gone", path)
    return stack.enter_context(Events())


def _kept(request: LaunchRequest, nproc: int, stack: ExitStack) -> tuple[ForkServer, str] | None:
    """The fork server that the caller keeps for launches like this one, and its mark; None if there
    is none for it.
    """
    kept = kept_server()
    if kept is None or request.config.start_method != "forkserver" or request.mark:
        return None
    server = kept.take(_workers_environment(nproc))
    if server is None:
        return None
    stack.callback(kept.give_back)
    return server, kept.mark


def _workers_environment(nproc: int) -> dict[str, str]:
    """What a server that is started for these workers should find, since it is read when they are
    not there yet.
    """
    env = dict(os.environ)
    if nproc > 1:
        env.setdefault("OMP_NUM_THREADS", "1")
    return env


def _starter(
    method: str,
    direct: Callable[[], Any] | None,
    *,
    inherited: Callable[[], set[int]],
    nproc: int,
    mark: str,
    server: tuple[ServerProcess, socket.socket] | None,
) -> Starter:
    from llutil.agent.start_methods.forkserver_client import ForkServer
    from llutil.agent.start_methods.spawn_and_fork import Fork, Spawn
    from llutil.system.processes import MARK_VARIABLE

    match method:
        case "fork":
            return Fork(direct, inherited)
        case "forkserver":
            # A forked worker's environment, as the kernel shows it, is the server's: so the mark
            # goes there.
            return ForkServer(_workers_environment(nproc) | {MARK_VARIABLE: mark}, server)
        case _:
            return Spawn()


def _static_master(rendezvous: RendezvousConfig) -> tuple[str | None, int | None]:
    """torch's static rendezvous wants the master's address in the spec."""
    if rendezvous.embedded or rendezvous.backend is not STATIC:
        return None, None
    (master,) = rendezvous.backend.endpoints(rendezvous.endpoint)
    return master.host, master.port


def _leave(handler: Any, signals: Any) -> None:
    # torch's dynamic handler closes the run id for everybody: not when only this node was told to
    # stop.
    if signals.caught is None:
        handler.shutdown()


def _check_handler_of_events(name: str) -> None:
    """Find out now that torch does not know ``name``: later it would be a KeyError in the middle of
    the job.
    """
    from torch.distributed.elastic.events import get_logging_handler

    try:
        get_logging_handler(name)
    except KeyError:
        raise ConfigError(
            f"event_log_handler is {name!r}, which torch does not know; wanted 'null' or 'console'"
        ) from None
