"""A process that outlives its agent, and ends every process of the job that the agent left.

``client`` is the agent's side. ``main`` runs in the guardian, without torch and site-packages: it
may import the standard library, ``llutil.time_budgets``, ``llutil.system.kill_all``,
``llutil.events.page_file``, ``llutil.ledgers.lease_revocation`` and what that names.
"""
