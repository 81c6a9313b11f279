"""What would ruin a long run in this deployment, told at the start of the task.

``facts`` reads values from Airflow and the host, ``findings`` turns them into sentences for people.
The room may import ``gang`` and plain values of ``llutil``. It refuses to stop a task.
"""
