"""Answers people who ask for a job through the agent's private socket, and takes their orders.

* ``job_observer``: what the agent's observer hears, kept for whoever asks.
* ``job_control``: the answers, and the flags that an order raises.

The room may import ``llutil.agent_socket``, ``llutil.events``, ``llutil.progress``, and of the
agent its observer, its steering and its signals. It runs on the agent's loop, and never waits.
"""
