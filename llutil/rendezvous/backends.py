"""From a backend's name to torch's ``RendezvousHandler`` for it.

The launcher looks names up here and not in torch's registry, where ``etcd`` means etcd's v2 API, which etcd
3.6 no longer has (torch 2.13). This module may import torch, inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llutil.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler

__all__ = ["Meeting", "handler_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where and as whom a node meets the others. ``configs`` holds the backend's own options."""

    backend: str
    endpoint: str
    run_id: str
    min_nodes: int
    max_nodes: int
    local_addr: str | None
    configs: Mapping[str, Any]

    @property
    def embedded(self) -> bool:
        """Whether there is nobody to meet: one node, and no endpoint was named."""
        return self.max_nodes == 1 and not self.endpoint


def handler_for(meeting: Meeting) -> RendezvousHandler:
    """A handler that has not met anybody yet.

    :raises ConfigError: the backend does not exist, or not in this installation.
    """
    if meeting.embedded:
        from llutil.rendezvous.embedded import EmbeddedRendezvous

        return EmbeddedRendezvous(meeting.run_id)
    match meeting.backend:
        case "c10d" | "static":
            return _torch_handler(meeting)
        case "etcd" | "zeus-adapter" as name:
            raise ConfigError(
                f"rdzv_backend {name!r} has no ledger in this version yet: use 'c10d' with an rdzv_endpoint that "
                "one of the nodes hosts, or one node without rdzv_endpoint, which needs no backend"
            )
        case other:
            raise ConfigError(f"rdzv_backend {other!r} is unknown")


def _torch_handler(meeting: Meeting) -> RendezvousHandler:
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    configs = dict(meeting.configs)
    if meeting.backend == "c10d" and "timeout" in configs:
        # torch's dynamic handler reads join_timeout and not the documented timeout (torch 2.13).
        configs.setdefault("join_timeout", int(configs["timeout"]))
    return get_rendezvous_handler(
        RendezvousParameters(
            backend=meeting.backend,
            endpoint=meeting.endpoint,
            run_id=meeting.run_id,
            min_nodes=meeting.min_nodes,
            max_nodes=meeting.max_nodes,
            local_addr=meeting.local_addr,
            **configs,
        )
    )
