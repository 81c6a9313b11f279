"""``python -m llutil``: the agent process of an Airflow task. It runs one job, and talks with the
task over a socket.

* ``main``: the process from its arguments to its exit status.
* ``arguments``: the descriptors that it has from its task.
* ``installed``: what is installed under its interpreter.
* ``task_process``: which process its task is.
* ``search_path``: where the ranks look for modules.
* ``prefork``: forks the fork server from this process before it has a second thread.
* ``task_socket``: reads and writes the socket on its own thread, so that a stop is noticed
  whatever the main thread does.
* ``input_signal``: starts that thread while the fork server is forked, if something comes.
* ``job_page``: the event page, on which the task raises flags.
* ``last_message``: what the task is told of an error.
* ``send_queue``: messages that wait for the task to read them.
* ``task_observer``: sends what happens on the node to the task.
* ``agent_record_writer``: the file that tells the next try who this agent was and how it ended.
* ``orphan_log``: the file that messages go to once the Airflow task is gone.

The room may import ``llutil.launcher`` and everything below it; it never imports Airflow. It
refuses to outlive its task by more than the grace period and a margin, and to lose a line that was
printed.
"""
