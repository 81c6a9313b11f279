"""Room airflow_provider/agent_client."""
