"""The agent process of the operator: one job, asked for and answered over one socket.

* ``process``: the life of the process, from its arguments to its exit status.
* ``warming``: the fork server, forked from this process before it has a thread.
* ``link``: the socket, on a thread of its own, so that a stop is heard whatever the main thread
  does.
* ``aftermath``: where words go once the Airflow task is gone.
* ``host``: what the agent tells its surroundings, as messages.

The room may import ``llutil.launcher`` and everything below it; it never imports Airflow. It
refuses to outlive its task by more than the grace period and a margin, and to lose a line that was
printed.
"""
