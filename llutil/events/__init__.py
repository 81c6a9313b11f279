"""The page that an agent and its workers share: flags for all, and a slot for each rank.

``page_file`` is the mapped file, ``rank_slot`` a rank's part of it, ``futex`` the wait on a word of
it, and ``events`` the ``Events`` that callers see. The room may import the standard library and
``llutil.errors``. It decides nothing: what a flag does to a job is the agent's business.
"""
