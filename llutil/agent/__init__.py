"""Runs the workers of one node: starts them, hears of everything that happens to them, ends them.

From the bottom:

* ``event_loop``: the one selector of an agent, with the callbacks of what it waits for.
* ``observer``, ``metrics``, ``stop_signals``, ``interruptible_call``: who is told what happens;
  measurements; signals that stop a job; calls that a stop can interrupt.
* ``worker_side/``: the first code that runs in a worker.
* ``start_methods/``: spawn, fork and forkserver.
* ``output/``: log files, and what ranks print.
* ``guardian/``: a process that outlives the agent, to leave nothing behind.
* ``workers/``: the processes of one round.
* ``failures/``: what a failed rank's end means, and what is said of it.
* ``base_agent``: torch's agent interface, with our workers. ``ledger_agent``, ``torch_agent`` and
  ``hosted_agent`` differ in how the agent meets others.

The room may import torch, and ``rendezvous`` and what lies below it. It refuses to call the CUDA
runtime, to import Airflow, and to wait for anything without a deadline.
"""
