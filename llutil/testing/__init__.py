"""A pytest plugin by which users test that their training survives: the fixture ``elastic_chaos``.

* ``plugin``: pytest's side: the option ``--elastic-chaos`` and the fixtures.
* ``chaos_run``: runs a training under faults, launches again what was preempted, and returns what
  it did. ``node`` is the process of one node, ``order`` what the two tell
  each other.
* ``history``: what the ranks wrote down, and what is wrong with that: steps and samples.
* ``leftovers``: what a job has left behind.

pytest imports ``plugin`` in each of its runs where this package is installed, so that imports
nothing but pytest before the fixture is used. The room stands above the launcher and may import it;
nothing imports the room.
"""
