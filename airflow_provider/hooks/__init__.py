"""Airflow's hooks: one runs the agent process, the others are connections to stores.

The room may import ``agent_client`` and ``parameters``. It never imports a store's client library:
a connection is tested in a process of its own.
"""
