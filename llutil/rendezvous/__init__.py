"""Where nodes agree on who is in a round, and on how it ended. Read docs/rendezvous.md beside it.

The protocol is a pure machine: observations in, instructions out. It knows no clock (``now`` is an
argument), no store, thread or process, so that a simulator can run thousands of bad days in
seconds. From the bottom:

* ``records``: what nodes write into the ledger; ``codec``: those records as JSON; ``layout``: under
  which keys.
* ``rules``: what the caller decided (nodes, times, budget); ``log``: what a generation has come to.
* ``seating``: who is in the next round, when and in which order; ``judging``: when and how a round
  ends.
* ``observations`` and ``instructions``: what a node's driver tells the machine, and what it is told
  to do.
* ``state``, ``absorbing``, ``following``, ``leading`` and ``machine``: one node's view, and its
  next step.

Those files may import plain Python of ``llutil`` and the standard library, but no clock, socket,
thread, randomness, ``os``, ``logging`` or torch. The files that drive the machine and speak to
torch are:

* ``backends``: from a backend's name to torch's handler; ``embedded``: the rendezvous of a job of
  one node; ``hosted``: that of nodes one of which hosts what they meet at.

Nothing is imported here, so that no caller pays for what it does not use.
"""
