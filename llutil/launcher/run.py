"""From a request to an agent and back: checks, the parts of an agent, one run, results.

This is where ``LaunchConfig`` becomes the values of the rooms below, and where their errors become the ones that
``launch_agent`` documents. The operator's agent process runs jobs through the same function, with a host of its
own. Imports torch through the agent, once the configuration was found to be sound.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llutil import shipping
from llutil.entrypoint import (
    Command,
    Entrypoint,
    Module,
    Reference,
    Script,
    Shipped,
    parse,
    problem_with,
)
from llutil.errors import ConfigError, EntrypointError, LaunchError, RendezvousError
from llutil.events import Events, remove_stale_pages
from llutil.launcher.checks import run_id_problems
from llutil.launcher.run_id import RUN_ID, deduce_run_id
from llutil.launcher.warm import kept_server

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec

    from llutil.agent.agent import Agent
    from llutil.agent.host import Host
    from llutil.agent.outcome import Returned
    from llutil.agent.starting import Starter
    from llutil.agent.warm import ForkServer, Server
    from llutil.launcher.launch_agent import LaunchConfig
    from llutil.rendezvous.backends import Meeting

__all__ = ["Request", "run"]

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """What a caller without a ``begin`` of its own does then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of ``launch_agent``, with what it takes from its surroundings.

    ``host`` None means the terminal. ``result_limit`` None means that results are Python objects; a number, that
    they are plain JSON values of at most so many bytes each. ``mark`` is in the environment of every process of
    the job; one is made up if it is empty. ``begin`` is called once the job hears signals itself, and before it
    starts its first process. ``server`` is a fork server that is there already, with the socket to it, for a job that
    uses one; its environment is this process's, mark included. ``keep`` takes each value's JSON, if there is a limit, and
    what it gives stands for the value in what ``run`` returns; with ``arrays``, an archive of those that have arrays.
    """

    config: LaunchConfig
    entrypoint: Callable[..., Any] | Entrypoint | str | None
    args: tuple[Any, ...]
    events: Events | None
    environ: Mapping[str, str]
    sys_path: tuple[str, ...]
    host: Host | None = None
    result_limit: int | None = None
    mark: str = ""
    begin: Callable[[], None] = _nothing
    server: tuple[Server, socket.socket] | None = None
    keep: Callable[[bytes], Any] | None = None
    arrays: bool = False


def run(request: Request) -> dict[int, Any]:
    """Run the job on this node; see ``launch_agent`` for what comes back and what is raised."""
    entrypoint, direct = _checked(request)
    with ExitStack() as stack:
        agent, meeting = _agent(request, entrypoint, direct, stack)
        with _translated(meeting), _recorded(agent, request.config):
            result = agent.run()
        return _results(result, agent, meeting, request.keep)


def _page(stack: ExitStack) -> Events:
    """A page of the job's own; those of jobs that were killed before they could remove theirs go on this occasion."""
    for path in remove_stale_pages():
        _log.info("removed %s, left by a process that is gone", path)
    return stack.enter_context(Events())


def _checked(request: Request) -> tuple[Entrypoint, Callable[[], Any] | None]:
    """The entrypoint as a value, and the function itself where a forked worker can have it.

    :raises ConfigError: listing every problem of the configuration and the entrypoint.
    """
    problems = request.config.problems()
    if not request.config.run_id:
        problems += run_id_problems(request.environ.get(RUN_ID, ""), f"{RUN_ID} in the environment")
    problems += _problems_of_page(request.events)
    others = bool(problems)
    entrypoint: Entrypoint | None = None
    direct: Callable[[], Any] | None = None
    try:
        entrypoint, direct = _resolve(request)
    except EntrypointError as error:
        problems += error.problems
    else:
        problem = problem_with(entrypoint, os.getcwd())  # noqa: PTH109 - workers start here too
        if problem:
            problems.append(problem)
    if problems:
        raise (ConfigError if others else EntrypointError)(problems)
    assert entrypoint is not None
    return entrypoint, direct


def _problems_of_page(events: Events | None) -> list[str]:
    if events is None:
        return []
    try:
        events.pause.is_set()
        _ = events.path
    except ConfigError as error:
        return [f"ice_events cannot be shared with workers: {error}"]
    except ValueError:
        return ["ice_events is closed; wanted an open page, or none to have one made"]
    return []


def _resolve(request: Request) -> tuple[Entrypoint, Callable[[], Any] | None]:
    given = request.entrypoint
    match given:
        case None:
            raise EntrypointError(
                "entrypoint is None; wanted a function, 'package.module:function', a script, '-m module' or a command"
            )
        case str():
            parsed = parse(given, request.args)
            if isinstance(parsed, Reference):
                return Reference(parsed.target, shipping.pack(request.args, {})), None
            return parsed, None
        case Shipped() | Reference() | Script() | Module() | Command():
            return given, None
        case _ if callable(given):
            shipping.check_arguments(given, request.args, {})
            if request.config.start_method == "fork":
                name = getattr(given, "__qualname__", type(given).__qualname__)
                return Shipped(name, b""), functools.partial(given, *request.args)
            return shipping.ship(given, request.args), None
        case _:
            raise EntrypointError(
                f"entrypoint is a {type(given).__name__}; wanted a function, 'package.module:function', "
                "a script, '-m module' or a command"
            )


def _agent(
    request: Request,
    entrypoint: Entrypoint,
    direct: Callable[[], Any] | None,
    stack: ExitStack,
) -> tuple[Agent, Meeting]:
    from torch.distributed.elastic.agent.server.api import WorkerSpec

    from llutil.agent import metrics
    from llutil.agent.agent import Job
    from llutil.agent.devices import worker_count
    from llutil.agent.following import FollowingAgent
    from llutil.agent.guardian import Guardian
    from llutil.agent.host import Terminal
    from llutil.agent.logs import LogFolder, LogPlan
    from llutil.agent.loop import Loop
    from llutil.agent.order import Order
    from llutil.agent.polling import PollingAgent
    from llutil.agent.signals import StopSignals
    from llutil.agent.waiting import heedful
    from llutil.rendezvous.backends import Meeting, driver_for, handler_for

    config = request.config
    _check_handler_of_events(config.event_log_handler)
    metrics.configure(config.metrics_cfg)
    run_id = config.run_id or deduce_run_id(request.environ)
    nproc = worker_count(config.nproc_per_node)
    meeting = Meeting(
        backend=config.rdzv_backend,
        endpoint=config.rdzv_endpoint,
        run_id=run_id,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        local_addr=config.local_addr,
        configs=config.rendezvous_configs(),
        role=config.role,
        nproc=nproc,
        max_restarts=config.max_restarts,
        token=config.rerun_token,
        index=config.node_index,
        label=config.node_label,
    )
    shown = frozenset(config.local_ranks_filter or ())
    logs = LogFolder(LogPlan(config.log_dir, config.redirects, config.tee, shown), run_id)
    loop = stack.enter_context(Loop())
    signals = stack.enter_context(StopSignals(loop))
    request.begin()
    kept = _kept(request, nproc, stack)
    mark = request.mark or (kept[1] if kept else uuid.uuid4().hex)
    guardian = Guardian(mark, loop)
    stack.callback(guardian.close)
    # Only now: should this process be killed, there is somebody to remove the page.
    events = request.events or _page(stack)
    host = request.host or Terminal()
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
    with _translated(meeting):
        # torch's c10d connects here; its embedded cousin needs no thread for what takes no time.
        handler = (
            handler_for(meeting)
            if meeting.embedded
            else heedful(lambda: handler_for(meeting), loop, signals)
        )
    driver = driver_for(meeting) if meeting.has_ledger else None
    if driver is None:
        stack.callback(_leave, handler, signals)
    master_addr, master_port = _static_master(meeting)
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
    job = Job(
        name=entrypoint.name,
        order=Order(
            entrypoint=entrypoint,
            sys_path=request.sys_path,
            result_limit=request.result_limit,
            arrays=request.arrays,
        ),
        mark=mark,
        grace=config.shutdown_timeout,
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
    if meeting.hosted:
        from llutil.agent.hosted import HostedAgent

        return HostedAgent(spec, job, handler=handler, **parts), meeting
    if driver is None:
        return PollingAgent(spec, job, **parts), meeting
    agent = FollowingAgent(spec, job, driver=driver, **parts)
    stack.callback(agent.leave)
    return agent, meeting


def _kept(request: Request, nproc: int, stack: ExitStack) -> tuple[ForkServer, str] | None:
    """The fork server that the caller keeps for launches like this one, and its mark; None if there is none for it."""
    kept = kept_server()
    if kept is None or request.config.start_method != "forkserver" or request.mark:
        return None
    server = kept.take(_workers_environment(nproc))
    if server is None:
        return None
    stack.callback(kept.give_back)
    return server, kept.mark


def _workers_environment(nproc: int) -> dict[str, str]:
    """What a server that is started for these workers should find, since it is read when they are not there yet."""
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
    server: tuple[Server, socket.socket] | None,
) -> Starter:
    from llutil.agent.processes import MARK
    from llutil.agent.starting import Fork, Spawn
    from llutil.agent.warm import ForkServer

    match method:
        case "fork":
            return Fork(direct, inherited)
        case "forkserver":
            # A forked worker's environment, as the kernel shows it, is the server's: so the mark goes there.
            return ForkServer(_workers_environment(nproc) | {MARK: mark}, server)
        case _:
            return Spawn()


def _static_master(meeting: Meeting) -> tuple[str | None, int | None]:
    """torch's static rendezvous wants the master's address in the spec."""
    if meeting.embedded or meeting.backend != "static":
        return None, None
    host, _, port = meeting.endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def _leave(handler: Any, signals: Any) -> None:
    # torch's dynamic handler closes the run id for everybody: not when only this node was told to stop.
    if signals.caught is None:
        handler.shutdown()


def _check_handler_of_events(name: str) -> None:
    """Find out now that torch does not know ``name``: later it would be a KeyError in the middle of the job."""
    from torch.distributed.elastic.events import get_logging_handler

    try:
        get_logging_handler(name)
    except KeyError:
        raise ConfigError(
            f"event_log_handler is {name!r}, which torch does not know; wanted 'null' or 'console'"
        ) from None


@contextmanager
def _recorded(agent: Agent, config: LaunchConfig) -> Iterator[None]:
    """Record how the agent itself ended in torch elastic's events, as torch's launcher does."""
    from torch.distributed.elastic import events

    try:
        yield
    except Exception:
        events.record(agent.get_event_failed(), config.event_log_handler)
        raise
    events.record(agent.get_event_succeeded(), config.event_log_handler)


@contextmanager
def _translated(meeting: Meeting) -> Iterator[None]:
    """torch's rendezvous errors, as ours.

    :raises RendezvousError: in place of torch's ``RendezvousError`` and its subclasses.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.rendezvous import RendezvousError as TorchRendezvousError

    try:
        yield
    except LaunchError:
        raise
    except (TorchRendezvousError, DistError) as error:
        where = f"{meeting.backend} at {meeting.endpoint}" if meeting.endpoint else meeting.backend
        raise RendezvousError(
            f"the rendezvous of run {meeting.run_id!r} on {where} failed ({meeting.min_nodes} to "
            f"{meeting.max_nodes} nodes wanted): {type(error).__name__}: {error}"
        ) from error


def _results(
    result: RunResult | None,
    agent: Agent,
    meeting: Meeting,
    keep: Callable[[bytes], Any] | None,
) -> dict[int, Any]:
    if result is None:
        # torch's agent returns nothing when a rendezvous told it to leave in peace.
        raise RendezvousError(f"this node left run {meeting.run_id!r} before the job ended")
    if result.is_failed():
        from llutil.agent.report import WorkersFailed

        assert agent.report is not None
        raise WorkersFailed(agent.report, result.failures)
    notes = result.return_values
    return {rank: _value(notes[rank], keep) for rank in sorted(notes)}


def _value(note: Returned | None, keep: Callable[[bytes], Any] | None) -> Any:
    """A rank's value: what was pickled, or what is plain JSON already; None for a script."""
    if note is None:
        return None
    if note.pickled:
        import cloudpickle

        return cloudpickle.loads(note.content)
    if keep is not None:
        return keep(note.content)
    import json

    return json.loads(note.content)
