"""What a child that a rank's ``multiprocessing`` spawns runs in place of the user's program.

``multiprocessing`` runs it by its name, as the child's ``__main__``. It finds what ``__main__`` and
the other modules of the rank hold, once the child asks for it; see ``spawned_children``.
"""

from __future__ import annotations

from llutil.agent.worker_side import spawned_children

__getattr__ = spawned_children.attribute_of_main
spawned_children.announce_modules()
