"""What runs in a worker, around the user's code.

``work_order`` is what a worker is told, ``worker_main`` runs it, ``outcome_pipe`` carries what a
rank returned or why it failed, ``fork_environment`` says which variables a forked worker can still
get. The room may import ``serialization``, ``events`` and plain values of ``llutil``; torch is
imported by the user's code alone.
"""
