"""Room airflow_provider/execution."""
