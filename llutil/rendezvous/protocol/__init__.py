"""The rendezvous protocol, as a machine without I/O: observations in, instructions out.

From the bottom:

* ``records``: what nodes write into the ledger; ``record_codec``: these records as JSON;
  ``record_keys``: their keys.
* ``parameters``: what the caller configured: nodes, times, restarts; ``run_history``: the newest
  records of a run's log.
* ``seal_decision``: who is in the next round, when it is sealed, and in which order;
  ``verdict_decision``: when and how a round ends.
* ``observations``: what the driver tells the machine; ``instructions``: what the machine tells the
  driver; ``ends``: how a node's part can end.
* ``state``: one node's view; ``apply_observation`` and ``derive_state`` change it;
  ``node_decisions``, ``leader_decisions`` and ``machine`` decide the node's next step, and
  ``end_without_ledger`` how it ends if the ledger does not take its word.

The room may import plain values of ``llutil`` and the standard library. It refuses clocks (``now``
is an argument), sockets, threads, randomness, ``os``, ``logging`` and torch; a lint contract holds
that.
"""
