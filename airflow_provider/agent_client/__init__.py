"""The task's side of its agent process: it starts the agent, talks to it, and shows what it says.

``process`` starts and ends the process, ``session`` holds the conversation, ``environment`` says
what the agent inherits, ``log_relay``, ``log_levels`` and ``progress_display`` put it into the
task's log. The room may import ``llutil.task_link`` and plain values of ``llutil``. It refuses to
know what a job is: no Airflow context, no gang, no retry.
"""
