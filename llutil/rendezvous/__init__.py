"""Where nodes agree on who is in a round, and on how it ended. Read docs/rendezvous.md beside it.

From the bottom:

* ``protocol/``: a pure machine; observations in, instructions out. A simulator runs thousands of
  bad days of it in seconds.
* ``config``: where and as whom a node meets the others.
* ``driver/``: drives the machine: clock, ledger, watches, and the round's TCPStore.
* ``handlers/``: torch's RendezvousHandler, on a ledger, on c10d, and for a job of one node.
* ``hosted/``: nodes that meet at a store which one of them hosts.
* ``build_handler``: from that to a handler; ``torchrun_entry_points``: the same for torchrun.

Nothing is imported here, so that no caller pays for what it does not use.
"""
