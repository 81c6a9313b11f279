"""The rendezvous backends by name, and what their options and endpoints mean: plain values.

* ``table``: every backend there is; whoever has to know what one can, looks there.
* ``backend``: what a row of the table says.
* ``options``: what an option is, and the one reading of the values that are given for it.
* ``endpoints``: ``host:port[,host:port...]`` as values.

Nothing is imported here. The modules import the standard library and ``llutil.errors`` alone: a DAG
that is parsed imports them, and so does each of Airflow's processes.
"""
