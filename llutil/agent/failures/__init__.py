"""What a failed rank's end means, and the report about it.

``classify`` finds the failure's class, ``describe`` gathers what is known of a rank's end,
``shorten`` cuts texts, ``report`` makes the text for people. Nothing here acts. The room may import
``workers.rank_exit``, ``worker_side`` and plain values of ``llutil``.
"""
