"""The operator, as a DAG file sees it: its parameters, and what Airflow calls.

The room may import ``execution``, ``retries`` and ``parameters``. A process that parses a DAG
imports it, so it imports no torch and no client of a store. Nothing is launched before ``execute``.
"""
