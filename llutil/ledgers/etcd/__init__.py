"""A ledger on etcd's v3 API, through the messages and stubs of the etcd3 package.

``config.EtcdConfig`` says where an etcd is, and costs nothing to import. ``ledger.EtcdLedger`` is
the ledger; importing that module imports etcd3 and grpc. Read ``ledger`` first: it says how the
rest hangs together.
"""
