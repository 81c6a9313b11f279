"""Room airflow_provider/retries."""
