"""``python -m llutil.agent_server``: a process that a worker's host may keep between tasks. It has
torch imported, and forks agents.

Without it, each agent is a fresh interpreter that imports torch, which is the longest part of a
short task. An Airflow deployment switches it on, ``[elastic_launch] keep_agents_ready``; nothing
here runs otherwise.

* ``place``: where its socket lies.
* ``client``: the task's side; asks for an agent, and starts a server for the tasks after this one.
* ``order``: what a task asks for, as the message that it sends.
* ``server``: the process: waits for orders, forks, tells how agents ended, and when to end itself.
* ``same_start``: whether an agent that is forked starts as a fresh one of that task would.
* ``files_on_disk``: whether what is imported is still what is installed.
* ``forked_agent``: makes an agent of a fork.
* ``shown_memory``: what ``/proc`` shows as the environment and command line of a fork.

The room may import ``llutil.agent_process`` and everything below it, and never Airflow. ``client``,
``order`` and ``place``, which a task imports, need the standard library and ``llutil.system``
alone.

It refuses to fork what would differ from a fresh agent, to serve another user, to fork while it has
a second thread, to call CUDA, to hold anything of a task's but what decides how Python and torch
are imported, and to outlive the Airflow worker that it was started for, except to tell how the
agents that still run have ended. Nothing but speed depends on it: where it is missing, frozen or
killed, an agent is started afresh.
"""
