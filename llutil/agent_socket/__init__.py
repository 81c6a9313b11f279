"""The private socket of an agent: how people on its host reach it, whoever launched the job.

* ``folder``: where sockets lie, who may use them, which of them are stale.
* ``messages``: what is asked and answered, one line of JSON each.
* ``server``: the agent's end, on the agent's event loop.
* ``client``: the other end.

The room may import the standard library and msgspec. It imports no torch, decides nothing, and
trusts nothing that comes over a socket.
"""
