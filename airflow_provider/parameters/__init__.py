"""Room airflow_provider/parameters."""
