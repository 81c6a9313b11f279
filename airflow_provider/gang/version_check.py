"""Compares the versions that the nodes of a gang run; the nodes tell them to each other by XCom.

A job whose nodes have different versions of torch may hang or compute something else. Each node
pushes its own versions as soon as its agent has sent its first message, and then reads those of its
siblings. So of any two nodes at least the later one sees both, before workers start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider.gang.node import GangNode
from airflow_provider.gang.xcom_values import VERSION, pull_all, value_of
from llutil.task_link.messages import Hello

__all__ = ["VERSIONS", "NodeVersions", "differences", "exchange"]

VERSIONS = "gang_versions"
"""The XCom of a node's versions of torch, Python and this package, for its siblings."""

_COMPARED = ("torch", "python", "launcher")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVersions:
    """The versions that node ``node`` runs, on ``host``; "" for one that is not known.

    ``rerun_token`` is that of its launch.
    """

    node: int
    rerun_token: str
    host: str
    torch: str
    python: str
    launcher: str

    def to_json(self) -> dict[str, Any]:
        """The versions as they are stored in XCom."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def of(cls, value: Any) -> NodeVersions | None:
        """The versions in an XCom value; None if it holds none."""
        return value_of(cls, value)


def differences(own: NodeVersions, others: Iterable[NodeVersions]) -> list[str]:
    """A line for each program of which siblings in the same launch have another version."""
    lines = []
    siblings = [
        one for one in others if one.rerun_token == own.rerun_token and one.node != own.node
    ]
    for name in _COMPARED:
        version = getattr(own, name)
        different = [
            one for one in siblings if getattr(one, name) and getattr(one, name) != version
        ]
        if version and different:
            listed = ", ".join(
                f"node {one.node} on {one.host} has {getattr(one, name)}" for one in different
            )
            lines.append(
                f"{name} is {version} on this node {own.node} ({own.host}), but {listed}: such a "
                "job may hang or compute something else; install the same on all hosts"
            )
    return lines


def exchange(node: GangNode, hello: Hello, host: str, ti: Any, log: logging.Logger) -> None:
    """Push the versions of ``node``, whose agent has sent ``hello``; warn if siblings differ."""
    own = NodeVersions(
        node=node.number,
        rerun_token=node.rerun_token,
        host=host,
        torch=hello.torch,
        python=hello.python_version,
        launcher=hello.launcher,
    )
    try:
        ti.xcom_push(key=VERSIONS, value=own.to_json())
        found = [NodeVersions.of(value) for value in pull_all(ti, node.key.task_id, VERSIONS)]
    except Exception as error:  # noqa: BLE001 - the job may well run
        log.debug("preflight: the nodes' versions could not be compared: %s", error)
        return
    for line in differences(own, (one for one in found if one is not None)):
        log.warning("preflight: %s", line)
