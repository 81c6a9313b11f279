"""Room airflow_provider/gang."""
