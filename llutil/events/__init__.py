"""The page that an agent and its workers share: flags for all, and a slot for each rank.

``page_file`` is the mapped file; ``rank_slot``, ``metrics``, ``flag`` and ``gate`` are its parts,
and ``events`` has the ``Events`` that callers see. ``steps`` is what a rank does when it finishes a
step. ``futex`` is the wait on a word, and ``memory_barrier`` makes sure that processes see what
others wrote. The room may import the standard library and
``llutil.errors``. It decides nothing: what a flag does to a job is the agent's business.
"""
