"""``python -m llutil``: the agent process of an Airflow task. One job, told and answered over a
socket.

* ``main``: the life of the process, from its arguments to its exit status.
* ``prefork``: the fork server, forked from this process before it has a thread.
* ``task_socket``: the socket, on a thread of its own, so that a stop is heard whatever the main
  thread does.
* ``task_observer``: what the agent observes, as messages to the task.
* ``agent_record_writer``: the file that tells the next try who this agent was and how it ended.
* ``orphan_log``: where messages go once the Airflow task is gone.

The room may import ``llutil.launcher`` and everything below it; it never imports Airflow. It
refuses to outlive its task by more than the grace period and a margin, and to lose a line that was
printed.
"""
