"""Looks for what could ruin a long run in this deployment; the task logs it when it starts.

``facts`` reads values from Airflow and the machine, ``findings`` turns them into sentences for
people. The room may import ``gang`` and plain values of ``llutil``. It never stops a task.
"""
