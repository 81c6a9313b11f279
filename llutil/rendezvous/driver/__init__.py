"""Drives the protocol's machine: it has the clock, the ledger, the watches and the round's store.

The room may import ``protocol`` and ``llutil.ledgers``. It decides nothing that the machine can
decide.
"""
