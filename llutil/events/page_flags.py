"""The flags of a page: what may be asked of a job, and what its agent says by them.

This module may import only the standard library and ``llutil.events.flag``.
"""

from __future__ import annotations

from collections.abc import Sequence

from llutil.events.flag import Flag

__all__ = ["PageFlags"]


class PageFlags:
    """The flags, in the order of their words on the page."""

    pause: Flag
    """Raise it to hold all ranks at the end of one step."""
    paused: Flag
    """The agent raises it when all ranks of its node are held, and lowers it when they go on."""
    resume: Flag
    """Raise it to let held ranks go on."""
    stop_all_tasks: Flag
    """Raise it to have all ranks save and stop at the end of one step. The job is a success."""
    trigger_save_checkpoint: Flag
    """Raise it to have all ranks save at the end of one step. The agent lowers it when it has taken
    it.
    """
    finished_save_checkpoint: Flag
    """The agent raises it when all ranks of its node have saved."""
    debugger_start: Flag
    """A rank stands at a breakpoint; the others wait, and no hang is suspected."""
    debugger_end: Flag
    """No rank stands at a breakpoint any more."""
    show_stacks: Flag
    """Raise it to have the agent of each node log the stacks of its ranks."""

    def map_flags(self, words: Sequence[memoryview]) -> None:
        """Use these words, 4 bytes each, one for each flag."""
        for name, word in zip(PageFlags.__annotations__, words, strict=True):
            setattr(self, name, Flag(word))
