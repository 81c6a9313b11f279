"""Nodes agree here on who is in a round, and on how it ended. docs/rendezvous.md explains how.

From the bottom:

* ``protocol/``: a machine without I/O: observations in, instructions out. A simulator tests it with
  thousands of failure scenarios.
* ``config``: the configuration of one node's rendezvous.
* ``driver/``: runs the machine: clock, ledger, watches, and the round's TCPStore.
* ``handlers/``: torch's RendezvousHandler, on a ledger, on c10d, and for a job of one node.
* ``build_handler``: makes handlers and drivers from a configuration; ``torchrun_entry_points``: the
  same for torchrun.

Nothing is imported here, so that a caller imports only what it uses.
"""
