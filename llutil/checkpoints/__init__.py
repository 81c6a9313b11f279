"""Checkpoints of a job: which count, how the ranks of a round commit one, and which to resume from.

``saves`` is what a rank calls. ``attempt`` is how the ranks of a round commit one checkpoint, and
``round_resume`` how they agree on which one to resume from, through files in the shared folder
alone. ``marker`` is the file that makes a checkpoint count, ``committed`` finds those that count,
``retention`` removes the others. ``local_store`` and ``remote_store`` are the folders, opened by
``open_store``. ``job_environment`` is what an agent needs of it, and ``interval`` what an interval
between two checkpoints may be.

What to write and how is the user's business. The room may import the standard library,
``llutil.errors``, ``llutil.job_name`` and, for URIs alone, fsspec. It imports no torch, and knows
nothing of the page, the ledger and the agent. It decides nothing about when to save.
"""
