"""Lets people see a running job and steer it: by the agent's private socket, and by its observer.

This module imports torch through the agent.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from llutil.agent_socket.server import AgentSocket

if TYPE_CHECKING:
    from llutil.agent.base_agent import Agent
    from llutil.agent.control.job_control import JobFacts
    from llutil.agent.control.job_observer import JobObserver
    from llutil.agent.event_loop import EventLoop
    from llutil.agent.stop_signals import StopSignals
    from llutil.events.events import Events

__all__ = ["build_control"]


def build_control(
    facts: JobFacts,
    agent: Agent,
    observer: JobObserver,
    loop: EventLoop,
    signals: StopSignals,
    events: Events,
    stack: ExitStack,
) -> None:
    """Open the socket of ``agent``, and have its ``observer`` told what the node does, if it wants
    that; ``stack`` ends both.
    """
    from llutil.agent.control.job_control import JobControl
    from llutil.agent.control.status_report import StatusReport

    control = JobControl(
        facts,
        agent.get_worker_group,
        agent.steering,
        observer,
        signals,
        events,
        lambda: agent.members,
    )
    stack.callback(AgentSocket(facts.run_id, loop, control.answer).close)
    if observer.wants_status:
        report = StatusReport(control.status, observer.status, loop)
        observer.on_change = report.soon
        stack.callback(report.close)
