"""``@task.elastic``: the operator for a function that is written in the DAG file.

The room may import ``operators`` and ``parameters``. It decides nothing about a launch.
"""
