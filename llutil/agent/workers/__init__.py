"""The processes of one round on one node: their start, their exits, their end.

The room may import ``start_methods``, ``output``, ``guardian`` and ``worker_side``. It refuses to
judge a failure: it says how each rank ended.
"""
