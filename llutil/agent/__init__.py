"""Runs the workers of one node: starts them, hears of everything that happens to them, ends them.

What is where, from the bottom:

* ``processes``: what Linux knows of processes: sessions, descendants, marks; how to end them all.
* ``loop``: the one selector of an agent and the callbacks of what it waits for.
* ``order``, ``bootstrap``: what a worker is told, and the first code that runs in it.
* ``outcome``: how a rank says what it returned or why it failed.
* ``starting``, ``warm``: how workers are started: spawn and fork; from a fork server, which is
  ``forkserver``.
* ``environment``, ``threads``: what of its environment a worker that was forked can still get.
* ``logs``: log files.
* ``workers``: the processes of one round.
* ``report``: what is said when a rank fails.
* ``agent``: torch's agent interface, with our workers; ``polling`` and ``following``: how it meets
  others.
* ``guardian``: a process that outlives the agent, to leave nothing behind; ``guarding`` is what
  runs in it.
* ``signals``, ``host``, ``devices``: stops, surroundings, GPUs.

The room may import torch, and ``rendezvous`` and what lies below it. It refuses to call the CUDA
runtime, to import Airflow, and to wait for anything without a deadline.
"""
