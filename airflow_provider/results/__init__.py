"""Room airflow_provider/results."""
