"""What the kernel knows: processes, out-of-memory kills, addresses, exit statuses.

The room may import the standard library and ``llutil.errors``. It knows nothing of jobs.
"""
