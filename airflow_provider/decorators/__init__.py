"""``@task.elastic``: the decorator for a function in a DAG file.

The room may import ``operators`` and ``parameters``. It decides nothing about a launch.
"""
