"""Airflow hooks: ``AgentHook`` runs the agent process, the others read connections to stores.

The room may import ``agent_client`` and ``parameters``. It never imports a store's client library:
a connection is tested in another process.
"""
