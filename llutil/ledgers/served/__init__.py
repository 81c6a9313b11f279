"""A ledger that one node of the job serves: for where there is no etcd and no ZooKeeper.

* ``config``: where the server is, and the secret that its clients share with it.
* ``handshake``: the frames on a connection, and how both sides prove that they know the secret.
* ``messages``: what is said after that.
* ``server``: the store in memory behind a socket, in a thread of the serving node's agent.
  ``client_state`` is what the server knows of one client.
* ``serving_node``: which node serves. ``standby_server`` tries again while the port is taken.
* ``ledger``, ``session``, ``watches``: the ledger that all nodes use, the serving one too, over
  ``connection``.
* ``revocation``: ends the lease of a node that was killed, with the standard library only.

The server's data are in its memory. They end with its process, and a server that is started again
at the same address is another ledger: all sessions are over then.

Messages are JSON of bounded length, and nothing is ever unpickled. Who does not know the secret is
heard for a few hundred bytes and a few seconds, and costs no thread. Messages are not encrypted.

This package may import the standard library, msgspec, the plain modules of ``llutil.ledgers``, its
store in memory, and ``llutil.backends.endpoints``.
"""
