"""torch's RendezvousHandler: on a ledger, on torch's own c10d, and for a job of one node.

The room may import torch and ``driver``. It does not know how workers run.
"""
