"""torch's rendezvous errors, as the ones that ``launch_agent`` documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llutil.errors import LaunchError, RendezvousError

if TYPE_CHECKING:
    from llutil.rendezvous.config import RendezvousConfig

__all__ = ["translated"]


@contextmanager
def translated(rendezvous: RendezvousConfig) -> Iterator[None]:
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
        backend = rendezvous.backend.name
        where = f"{backend} at {rendezvous.endpoint}" if rendezvous.endpoint else backend
        raise RendezvousError(
            f"the rendezvous of run {rendezvous.run_id!r} on {where} failed "
            f"({rendezvous.min_nodes} to {rendezvous.max_nodes} nodes wanted): "
            f"{type(error).__name__}: {error}"
        ) from error
