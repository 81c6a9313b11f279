"""One try of one task instance: its launch, and what an earlier try has left.

``task_run`` makes a launch from the operator and Airflow's context, ``launch`` runs it,
``gang_node`` runs it as one node of a gang, ``slot_wait`` waits for the siblings meanwhile, and
``dag_test`` runs all nodes of a gang for ``dag.test()``. ``earlier_try`` waits for the agent of the
try before; ``worker_files`` has the files on the worker's disk, ``final_exception`` the exceptions
of Airflow's that a rank may raise, ``log_by_text`` how the log shows an error. The room may import
every room below it. It does not check what a DAG author wrote: ``parameters`` does that before a
try begins.
"""
