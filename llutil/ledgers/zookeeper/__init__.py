"""A ledger on ZooKeeper, through kazoo: what ``rdzv_backend="zeus-adapter"`` means here.

Meta's Zeus, from which that name comes, is not public, and nothing public says what it speaks. That
the name stands for ZooKeeper's protocol is this project's own mapping, and no promise of
compatibility with anything of Meta's.

``config.ZooKeeperConfig`` says where a ZooKeeper is, and costs nothing to import.
``ledger.ZooKeeperLedger`` is the ledger; importing that module imports kazoo. Read ``ledger``
first: it says how the rest hangs together.
"""
