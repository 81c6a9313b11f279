"""What the kernel knows: processes, out-of-memory kills, addresses, exit statuses; and the lines of
what a process printed.

The room may import the standard library and ``llutil.errors``. It knows nothing of jobs.
"""
