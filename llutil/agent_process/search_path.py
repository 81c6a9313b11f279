"""Where the ranks of a task look for modules.

The agent itself has the task's folders last on its ``sys.path``: nothing there may hide a module
that it needs. Ranks run the task's code, and find modules in the order in which the task does. This
module may import only the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

__all__ = ["ranks_path"]


def ranks_path(sys_path: Sequence[str], before_site_packages: Sequence[str]) -> tuple[str, ...]:
    """The agent's ``sys_path``, with these folders moved to before the site-packages.

    The standard library stays before them: a rank has it still to load, as the task had not when
    its DAG file inserted a folder.
    """
    others = [entry for entry in sys_path if entry not in before_site_packages]
    site_packages = (
        index
        for index, entry in enumerate(others)
        if PurePath(entry).name in {"site-packages", "dist-packages"}
    )
    at = next(site_packages, len(others))
    return (*others[:at], *before_site_packages, *others[at:])
