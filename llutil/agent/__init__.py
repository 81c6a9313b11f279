"""Runs the workers of one node: starts them, notices what happens to them, ends them.

From the bottom:

* ``event_loop``: the agent's only selector, and its callbacks.
* ``observer``: hears what happens on the node. ``metrics``: measurements. ``stop_signals``: signals
  that stop a job. ``interruptible_call``: calls that a stop can interrupt.
* ``worker_side/``: the code that runs in a worker, around the user's.
* ``start_methods/``: spawn, fork and forkserver.
* ``output/``: log files, and what ranks print.
* ``guardian/``: a process that outlives the agent and ends what the agent left.
* ``workers/``: the worker processes of one round.
* ``hang/``: finds ranks that hang. ``steering/``: checkpoints, pauses and stops that all ranks do
  at one step.
* ``failures/``: the class of a failure, and the report about it. ``kept_values``: what ranks
  returned, where nobody can say whether the job succeeded.
* ``base_agent``: torch's agent interface, with our workers. ``ledger_agent`` and ``torch_agent``
  add how the node meets the other nodes.

The room may import torch, and ``rendezvous`` and what lies below it. It refuses to call the CUDA
runtime, to import Airflow, and to wait for anything without a deadline.
"""
