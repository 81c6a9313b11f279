"""Builds the agent of a checked request, part by part, in the order in which the parts need each
other.

The caller's ``ExitStack`` closes the parts in the opposite order. Afterwards no worker runs yet,
but a guardian does, a fork server if the job uses one, and with torch's own backends a connection
is open. This module imports torch through the agent.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llutil.backends.table import BACKENDS, STATIC
from llutil.chaos.job_chaos import JobChaos
from llutil.checkpoints.job_environment import (
    check_checkpoint_path,
    checkpoint_environment,
    every_seconds,
)
from llutil.checkpoints.place import FOLDER
from llutil.entrypoint import Entrypoint, Module, Script
from llutil.errors import ConfigError
from llutil.events.events import Events, remove_stale_pages
from llutil.launcher.build_control import build_control
from llutil.launcher.build_starter import new_starter, take_shared_server, warn_of_fork
from llutil.launcher.request import LaunchRequest
from llutil.launcher.torch_errors import torch_errors_translated
from llutil.ledgers.served.job_server import JobServer
from llutil.progress.display import on_stderr
from llutil.serialization.shared_objects import SharedObjects
from llutil.system.gc_pause import gc_paused
from llutil.system.signal_names import signals_named
from llutil.time_budgets import LEDGER_LEFT

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import WorkerSpec

    from llutil.agent.base_agent import Agent
    from llutil.agent.ledger_agent import LedgerAgent
    from llutil.agent.start_methods.starter import Starter
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["build_agent"]

_log = logging.getLogger(__name__)


def build_agent(
    request: LaunchRequest,
    entrypoint: Entrypoint,
    direct: Callable[[], Any] | None,
    stack: ExitStack,
    shared_objects: SharedObjects | None = None,
) -> tuple[Agent, RendezvousConfig]:
    """The agent for ``request``, and its rendezvous' configuration. ``direct`` is the function
    itself if workers are forked. ``shared_objects`` has what ranks share with this process.

    :raises ConfigError: torch or this host lacks something that the configuration asks for.
    :raises RendezvousError: one of torch's own backends cannot be reached.
    """
    with gc_paused():
        from torch.distributed.elastic.agent.server.api import WorkerSpec

        from llutil.agent import metrics
        from llutil.agent.agent_job import AgentJob
        from llutil.agent.control.job_control import JobFacts
        from llutil.agent.control.job_observer import JobObserver
        from llutil.agent.event_loop import EventLoop
        from llutil.agent.guardian.client import Guardian
        from llutil.agent.interruptible_call import interruptible
        from llutil.agent.ledger_agent import LedgerAgent
        from llutil.agent.observer import TerminalObserver
        from llutil.agent.output.log_files import LogFolder
        from llutil.agent.stop_signals import StopSignals
        from llutil.agent.torch_agent import TorchBackendAgent
        from llutil.agent.watchdog import start_health_check, start_watchdog
        from llutil.agent.worker_side.work_order import WorkOrder
        from llutil.agent.workers.rank_environment import check_visible_devices
        from llutil.launcher.cpu_binding import cpus_of_ranks
        from llutil.launcher.device_count import worker_count
        from llutil.launcher.log_options import log_options
        from llutil.rendezvous.build_handler import build_driver, build_handler, serve_ledger

    config = request.config
    _check_event_log_handler(config.event_log_handler)
    metrics.configure(config.metrics_cfg)
    nproc = worker_count(config.nproc_per_node)
    cpus = cpus_of_ranks(config.numa_options, nproc)
    if config.virtual_local_rank:
        check_visible_devices(nproc)
    rendezvous = rendezvous_config(request, nproc)
    if config.start_method == "fork" and "password" in rendezvous.options:
        warn_of_fork()
    logs = LogFolder(log_options(config), rendezvous.run_id)
    loop = stack.enter_context(EventLoop())
    stop_signals = signals_named(config.signals_to_handle)
    signals = stack.enter_context(StopSignals(loop, stop_signals))
    checkpoints = checkpoint_environment(config, rendezvous.run_id)
    if "://" in checkpoints.get(FOLDER, ""):  # in a store that may be far away
        interruptible(lambda: check_checkpoint_path(config, rendezvous.run_id), loop, signals)
    else:
        check_checkpoint_path(config, rendezvous.run_id)
    chaos = JobChaos(config, rendezvous.run_id, checkpoints.get(FOLDER, ""))
    if request.unique_run:
        stack.callback(chaos.leave)
    request.before_first_process()
    shared = take_shared_server(request, nproc, stack)
    server = JobServer()
    mark = request.mark or (shared[1].mark if shared else uuid.uuid4().hex)
    guardian = shared[1].guardian(loop) if shared else Guardian(mark, loop)
    stack.callback(guardian.keep if shared else guardian.close)
    # After the guardian: it removes the page if this process is killed.
    events = request.events or _event_page(stack)
    request.on_event_page(events)
    observer = JobObserver(request.observer or TerminalObserver(on_stderr()))
    if shared:
        starter: Starter = shared[0]
    else:
        starter = new_starter(
            config.start_method,
            direct,
            inherited=lambda: {
                *(loop.fds() | guardian.fds() | observer.fds()),
                *server.fds(),
            },
            nproc=nproc,
            mark=mark,
            server=request.fork_server,
            on_copy=signals.restore_broken_pipe,
        )
        stack.callback(starter.close)
    start_health_check(stack)
    if rendezvous.served:
        rendezvous, server = serve_ledger(rendezvous)
        stack.callback(server.close)  # from now on, whatever the next parts raise
    with torch_errors_translated(rendezvous):
        # torch's c10d backend connects here, which may take long. A rendezvous inside this agent
        # connects to nothing, so it needs no thread.
        handler = (
            build_handler(rendezvous)
            if rendezvous.embedded
            else interruptible(lambda: build_handler(rendezvous), loop, signals)
        )
    cut_order = events.cut_order if chaos.cuts else None
    driver = build_driver(rendezvous, cut_order) if rendezvous.has_ledger else None
    if driver is None:
        stack.callback(_shut_down_handler, handler, signals)
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
        virtual_local_rank=config.virtual_local_rank,
    )
    job = AgentJob(
        name=entrypoint.name,
        order=WorkOrder(
            entrypoint=entrypoint,
            argv=request.argv,
            sys_path=request.script_sys_path
            if isinstance(entrypoint, Script | Module)
            else request.sys_path,
            result_limit=request.result_limit,
            arrays=request.arrays,
            stop_signals=stop_signals,
            kept_folder=request.kept_folder or str(logs.path / "results"),
            log_level=request.log_level,
        ),
        mark=mark,
        grace_period=config.shutdown_timeout,
        restart_grace=config.restart_grace,
        exit_timeout=config.exit_timeout,
        hang_timeout=config.hang_timeout,
        checkpoints=checkpoints,
        chaos=chaos.environment(),
        save_period=every_seconds(config),
        line_prefix=config.log_line_prefix_template,
        signals=config.signals_to_handle,
        cpus=cpus,
        timer_file=start_watchdog(rendezvous.run_id, stack),
        shared=shared_objects if shared_objects is not None and shared_objects.used else None,
        logs=logs,
        events=events,
    )
    parts: dict[str, Any] = {
        "starter": starter,
        "guardian": guardian,
        "loop": loop,
        "observer": observer,
        "signals": signals,
    }
    agent: Agent
    if driver is None:
        agent = TorchBackendAgent(spec, job, **parts)
    else:
        agent = LedgerAgent(spec, job, driver=driver, server=server, **parts)
        stack.callback(_end_server, server, agent)
        if rendezvous.options.get("serves"):
            observer.ledger_served(rendezvous.endpoint)
        stack.callback(agent.leave)
    facts = JobFacts(
        run_id=rendezvous.run_id,
        entrypoint=entrypoint.name,
        label=config.node_label,
        max_restarts=config.max_restarts,
        checkpoint_folder=checkpoints.get(FOLDER, ""),
        log_folder=str(logs.path),
    )
    build_control(facts, agent, observer, loop, signals, events, stack)
    return agent, rendezvous


def rendezvous_config(request: LaunchRequest, nproc: int) -> RendezvousConfig:
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
        unique_run=request.unique_run,
        saves_before_growth=config.checkpoint_path is not None,
    )


def _event_page(stack: ExitStack) -> Events:
    """A new page for the job. Pages that killed jobs left on this host are removed first."""
    for path in remove_stale_pages():
        _log.info("removed the event page %s of a process that has ended", path)
    return stack.enter_context(Events())


def _end_server(server: JobServer, agent: LedgerAgent) -> None:
    """Stop serving the ledger. If the job is over, the other nodes may read that first. If only
    this node ends, they learn at once that their ledger goes.
    """
    server.close(linger=LEDGER_LEFT if agent.job_is_over else 0.0)


def _static_master(rendezvous: RendezvousConfig) -> tuple[str | None, int | None]:
    """torch's static rendezvous wants the master's address in the spec."""
    if rendezvous.embedded or rendezvous.backend is not STATIC:
        return None, None
    (master,) = rendezvous.backend.endpoints(rendezvous.endpoint)
    return master.host, master.port


def _shut_down_handler(handler: Any, signals: Any) -> None:
    # The shutdown of torch's dynamic handler ends the run id for all nodes, which is wrong if only
    # this node was told to stop.
    if signals.caught is None:
        handler.shutdown()


def _check_event_log_handler(name: str) -> None:
    """Refuse a ``name`` that torch does not know. torch itself would raise a KeyError in the middle
    of the job.
    """
    from torch.distributed.elastic.events import get_logging_handler

    try:
        get_logging_handler(name)
    except KeyError:
        raise ConfigError(
            f"event_log_handler is {name!r}, which torch does not know; wanted 'null' or 'console'"
        ) from None
