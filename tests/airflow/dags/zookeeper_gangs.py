"""A gang whose nodes meet through ZooKeeper, by a connection alone."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider.operators.elastic import ElasticLaunchOperator


@dag(schedule=None)
def chorus() -> None:
    """Two nodes; that it is a ZooKeeper is said by the connection."""
    ElasticLaunchOperator.gang(
        task_id="sing",
        nodes=2,
        entrypoint="duties:identity",
        rdzv_conn_id="zookeeper_tests",
    )


chorus()
