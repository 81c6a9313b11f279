"""Airflow's hooks: the agent process as a hook, and connections to stores.

The room may import ``agent_client`` and ``parameters``. A store's client library is never imported
here: a connection is tested in a process of its own.
"""
