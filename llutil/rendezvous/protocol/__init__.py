"""The rendezvous protocol, as a machine without I/O: observations in, instructions out.

From the bottom:

* ``records``: what nodes write into the ledger; ``record_codec``: these records as JSON;
  ``record_keys``: their keys.
* ``parameters``: what the caller configured: nodes, times, restarts; ``run_history``: the newest
  records of a run's log.
* ``record_base`` and ``gate_records``: what ``records`` are made of, and those of them by which
  ranks agree on a step; ``gate_history``: the newest of these.
* ``seal_decision``: who is in the next round, when it is sealed, and in which order;
  ``verdict_decision``: when and how a round ends; ``gate_decision``: at which step ranks do what
  was wished.
* ``observations``: what the driver tells the machine; ``instructions``: what the machine tells the
  driver; ``gate_messages``: both, as far as they are about gates; ``ends``: how a node's part can
  end.
* ``state``: one node's view, and ``gate_part`` what it knows of gates; ``apply_observation``,
  ``apply_gates`` and ``derive_state`` change it; ``node_decisions``, ``leader_decisions``,
  ``gate_steps`` and ``machine`` decide the node's next step, and
  ``end_without_ledger`` how it ends if the ledger does not take its word.

The room may import plain values of ``llutil`` and the standard library. It refuses clocks (``now``
is an argument), sockets, threads, randomness, ``os``, ``logging`` and torch; a lint contract holds
that.
"""
