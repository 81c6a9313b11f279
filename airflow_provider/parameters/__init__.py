"""What a DAG author wrote: checked when the DAG is parsed, and resolved when the task runs.

The room may import plain values of ``llutil``: configuration, entrypoints, errors. It starts no
process, opens no file, and reads nothing but Airflow's configuration and connections.
"""
