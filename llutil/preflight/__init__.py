"""Looks for what could ruin a run on this host, before it starts.

* ``addresses``: whether other nodes find this one.
* ``host``: shared memory, limits, free space, versions.

The room may import ``llutil.backends``, ``llutil.events``, ``llutil.system`` and errors. It imports
no torch and no store's client, stops nothing, and writes to no log: the operator's preflight and
``llutil doctor`` say what was found.
"""
