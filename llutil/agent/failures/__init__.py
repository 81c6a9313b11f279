"""What a failed rank's end means, and what is said of it.

``classify`` finds the failure's class, ``describe`` gathers what is known of a rank's end,
``report`` makes the text for people. Nothing here acts. The room may import ``workers.rank_exit``,
``worker_side`` and plain values of ``llutil``.
"""
