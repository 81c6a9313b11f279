"""A ledger on etcd's v3 API. It uses the messages and stubs of the etcd3 package.

``config.EtcdConfig`` says where an etcd is; it is cheap to import. ``ledger.EtcdLedger`` is the
ledger; importing that module imports etcd3 and grpc. Read ``ledger`` first: it says what each
module is for.
"""
