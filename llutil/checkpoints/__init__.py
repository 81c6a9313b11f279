"""Checkpoints of a job: which count, how the ranks of a round commit one, and which to resume from.

``saves`` is what a rank calls. ``attempt`` is how the ranks of a round commit one checkpoint,
through files in the shared folder alone. ``marker`` is the file that makes a checkpoint count,
``committed`` finds those that count, ``retention`` removes the others. ``local_store`` and
``remote_store`` are the folders, opened by ``open_store``.

What to write and how is the user's business. The room may import the standard library,
``llutil.errors`` and, for URIs alone, fsspec. It imports no torch, and knows nothing of the page,
the ledger and the agent. It decides nothing about when to save.
"""
