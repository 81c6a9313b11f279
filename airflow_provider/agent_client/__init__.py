"""The task's side of its agent process: starts the agent, talks to it, and shows what it reports.

``process`` starts and ends the process. ``session`` exchanges messages with it. ``environment``
says what the agent inherits. ``log_relay`` and ``log_levels`` write what it reports into the
task's log. The room may import ``llutil.task_link`` and plain values of
``llutil``. It does not know what a job is: it takes no Airflow context, no gang and no retry.
"""
