"""Turns torch's rendezvous errors into the ones that ``launch_agent`` documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llutil.errors import LaunchError, RendezvousError, RendezvousTimeoutError

if TYPE_CHECKING:
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["torch_errors_translated"]


@contextmanager
def torch_errors_translated(rendezvous: RendezvousConfig) -> Iterator[None]:
    """Turn torch's rendezvous errors inside the block into ours.

    :raises RendezvousTimeoutError: in place of torch's error of that name.
    :raises RendezvousError: in place of torch's ``RendezvousError`` and its other subclasses.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.rendezvous import RendezvousError as TorchRendezvousError
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError as TorchTimeoutError

    try:
        yield
    except LaunchError:
        raise
    except (TorchRendezvousError, DistError) as error:
        backend = rendezvous.backend.name
        where = f"{backend} at {rendezvous.endpoint}" if rendezvous.endpoint else backend
        kind = RendezvousTimeoutError if isinstance(error, TorchTimeoutError) else RendezvousError
        raise kind(
            f"the rendezvous of run {rendezvous.run_id!r} on {where} failed "
            f"({rendezvous.min_nodes} to {rendezvous.max_nodes} nodes wanted): "
            f"{type(error).__name__}: {error}"
        ) from error
