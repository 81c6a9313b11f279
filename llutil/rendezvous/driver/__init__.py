"""Runs the protocol's machine: this room has the clock, the ledger, the watches and the round's
store.

The room may import ``protocol`` and ``llutil.ledgers``. It leaves every decision to the machine.
"""
