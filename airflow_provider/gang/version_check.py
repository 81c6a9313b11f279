"""The versions that the nodes of a gang run, told to each other through XCom and compared.

A job whose nodes have different torch may hang or compute something else. Each node tells its own
as soon as its agent has said hello, and then looks at its siblings': so of two nodes at least the
later one sees both, before workers start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider.gang.node import GangNode, pulled
from llutil.task_link.messages import Hello

__all__ = ["VERSIONS", "NodeVersions", "differences", "exchange"]

VERSIONS = "gang_versions"
"""The XCom key of what a node tells."""

_COMPARED = ("torch", "python", "launcher")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVersions:
    """What the node ``node`` runs, on ``host``, in this ``life`` of the gang; "" where it is not
    known.
    """

    node: int
    life: str
    host: str
    torch: str
    python: str
    launcher: str

    def to_json(self) -> dict[str, Any]:
        """As it lies in XCom."""
        return {"version": 1, **asdict(self)}

    @classmethod
    def of(cls, value: Any) -> NodeVersions | None:
        """The versions in an XCom value; None if it holds none."""
        if not isinstance(value, Mapping) or value.get("version") != 1:
            return None
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})


def differences(own: NodeVersions, others: Iterable[NodeVersions]) -> list[str]:
    """A line for each thing of which other nodes of the same life have another version."""
    lines = []
    siblings = [one for one in others if one.life == own.life and one.node != own.node]
    for name in _COMPARED:
        mine = getattr(own, name)
        theirs = [one for one in siblings if getattr(one, name) and getattr(one, name) != mine]
        if mine and theirs:
            told = ", ".join(
                f"node {one.node} on {one.host} has {getattr(one, name)}" for one in theirs
            )
            lines.append(
                f"{name} is {mine} on this node {own.node} ({own.host}), but {told}: such a job may hang or compute "
                "something else; install the same on all hosts"
            )
    return lines


def exchange(node: GangNode, hello: Hello, host: str, ti: Any, log: logging.Logger) -> None:
    """Tell the versions of ``node``, whose agent has said ``hello``, and warn of siblings that have
    others.
    """
    own = NodeVersions(
        node=node.number,
        life=node.life,
        host=host,
        torch=hello.torch,
        python=hello.python_version,
        launcher=hello.launcher,
    )
    try:
        ti.xcom_push(key=VERSIONS, value=own.to_json())
        found = [NodeVersions.of(value) for value in pulled(ti, node.key.task_id, VERSIONS)]
    except Exception as error:  # noqa: BLE001 - the job may well run
        log.debug("preflight: the nodes' versions could not be compared: %s", error)
        return
    for line in differences(own, (one for one in found if one is not None)):
        log.warning("preflight: %s", line)
