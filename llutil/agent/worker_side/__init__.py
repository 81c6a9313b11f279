"""What runs in a worker, around the user's code.

``work_order`` is what a worker is told. ``worker_main`` runs it, ``main_module`` finds a script's
or module's code, ``program_end`` ends the process. ``outcome_pipe`` carries what a rank returned or
why it failed; ``returned_value`` and ``error_report`` make that. ``fork_environment`` says which
variables can still be set in a forked worker, ``system_exit`` which status a ``SystemExit`` asks
for. ``spawned_children`` and ``spawned_main`` give the rank's own children the modules that only
the rank has. The room may import ``serialization``, ``events`` and plain values of ``llutil``; only
the user's code imports torch.
"""
