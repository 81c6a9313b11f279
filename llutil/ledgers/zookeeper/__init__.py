"""A ledger on ZooKeeper, through kazoo. ``rdzv_backend="zeus-adapter"`` means this ledger.

The name comes from Meta's Zeus, which is not public, and neither is its protocol. That the name
stands for ZooKeeper's protocol is this project's own choice. It promises no compatibility with
anything of Meta's.

``config.ZooKeeperConfig`` says where a ZooKeeper is; it is cheap to import.
``ledger.ZooKeeperLedger`` is the ledger; importing that module imports kazoo. Read ``ledger``
first: it says what each module is for.
"""
