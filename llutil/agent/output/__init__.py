"""What ranks print: it goes into log files, to the console, or both.

The room may import ``event_loop``, ``observer`` and plain values of ``llutil``. It refuses to lose
a line, and to let one rank's output delay another's.
"""
