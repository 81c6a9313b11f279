"""How workers are started: by spawn, by fork, or from a fork server that has torch imported.

In all three a rank server starts them: ``rank_server_loop`` runs in that process, ``rank_server``
in the agent. ``spawn_and_fork`` and ``forkserver_client`` are the three starters,
``forkserver_main`` the rank server that has torch imported. The room may import ``worker_side`` and
what lies below it. It refuses to know what a worker runs.
"""
