"""Steers the ranks of one node: makes wishes of the page's flags, holds ranks at gates, and lets
them end at a step before anybody sends them a signal.

* ``agreement``: how the ranks of a job agree on a step; with one node, the node decides alone.
* ``page_gates``: the gates of the node's page, whatever numbers the ledger gives them.
* ``seen_ranks``: what the page says of the ranks.
* ``flags``: what the flags of the page ask for.
* ``asked_checkpoint``: whether ranks have saved what they were asked to.
* ``steering``: ties these together for an agent, round after round.
* ``orderly_stop``: this node's own end, when the platform takes it away.

The room may import ``llutil.events``, the protocol's ``WishKind`` and the agent's observer. It
works on the agent's thread, in its own turns. It reads no store, starts no process and no thread,
and sends no signal.
"""
