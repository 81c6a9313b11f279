"""How workers are started: by spawn, by fork, or from a fork server that has torch imported.

``forkserver_main`` runs in the fork server, ``forkserver_client`` in the agent. The room may import
``worker_side`` and what lies below it. It refuses to know what a worker runs.
"""
