"""Finds ranks that hang, from the event page, and says which rank the others wait for.

``hang_watch`` decides from what is seen of the ranks whether one hangs, and ``odd_rank`` which one
it is; both are pure. ``exit_watch`` sees to ranks that have returned and whose processes have not
ended. ``stack_text`` reads the texts of stacks, ``take_stacks`` takes them from processes, and
``hang_finder`` puts these together for an agent. The room imports ``workers`` and ``worker_side``
of the agent, and no torch. It ends no process.
"""
