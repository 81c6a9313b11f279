"""The Airflow side: an operator and a decorator that run elastic PyTorch jobs on Airflow's own
workers.

Nothing is imported here, so that parsing a DAG pays only for the module that it names. The operator
starts an agent process and talks to it; torch, gRPC and the stores' clients are never imported in a
process of Airflow.
"""
