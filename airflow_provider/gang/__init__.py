"""What one node of a gang knows of its siblings, the other nodes, and what it decides from that.

Decisions are functions of values: the states and notes of the siblings, and the time. The room may
import ``parameters`` and plain values of ``llutil``. It starts no process.
"""
