"""The rendezvous protocol, as a machine without I/O: observations in, instructions out.

From the bottom:

* ``records``: what nodes write into the ledger; ``record_codec``: those records as JSON;
  ``record_keys``: under which keys.
* ``parameters``: what the caller decided: nodes, times, restarts; ``run_history``: what a
  generation has come to.
* ``seal_decision``: who is in the next round, when and in which order; ``verdict_decision``: when
  and how a round ends.
* ``observations`` and ``instructions``: what the driver tells the machine, and what it is told.
* ``state``, ``derive_state``, ``apply_observation``, ``node_decisions``, ``leader_decisions`` and
  ``machine``: one node's view, and its next step.

The room may import plain values of ``llutil`` and the standard library. It refuses clocks (``now``
is an argument), sockets, threads, randomness, ``os``, ``logging`` and torch; a lint contract holds
that.
"""
