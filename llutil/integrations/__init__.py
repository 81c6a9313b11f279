"""Callbacks for the frameworks that people train with: one file each, for whoever uses it.

A callback ties a framework's own loop to ``llutil.worker``: progress, a checkpoint and a stop of
all ranks after the same step, and resume. Only a rank that uses a framework imports its file here,
which imports the framework; nothing else of llutil imports this room. It may import torch,
``llutil.errors`` and ``llutil.worker``. It installs no signal handler and starts no process.
"""
