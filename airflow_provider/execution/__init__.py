"""One try of one task instance: what is launched, as whom, and what an earlier try has left.

``task_run`` puts a try together from Airflow's context, ``launch`` runs it, ``gang_node`` runs it
as one node of a gang, ``dag_test`` runs all nodes of a gang for ``dag.test()``. ``earlier_try``
waits for the agent of the try before, ``worker_files`` knows the files on the worker's disk. The
room may import every room below it. It refuses to check what a DAG author wrote: that is done in
``parameters`` before a try begins.
"""
