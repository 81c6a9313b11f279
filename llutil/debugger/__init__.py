"""Python's debugger for ranks: ``breakpoint`` gives a rank the terminal of the launching program.

``breakpoint`` is what user code calls. ``rank_pdb`` is pdb on that terminal, which ranks use in
turns, and ``frame_pdb`` what has it stop in the right place. This room may import the standard
library, ``llutil.errors``, ``llutil.events``, ``llutil.system`` and ``llutil.worker``. It starts no
process and no thread.
"""
