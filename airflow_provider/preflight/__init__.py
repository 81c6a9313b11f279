"""Room airflow_provider/preflight."""
