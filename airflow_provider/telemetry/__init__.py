"""What a task tells of its job by Airflow's own set-up for metrics and traces.

Airflow sends metrics to StatsD, Datadog or OpenTelemetry, and spans to OpenTelemetry, as
``[metrics]`` and ``[traces]`` say; without them, nothing here does anything.

* ``job_metrics``: counters, times and gauges, by ``airflow.sdk.observability.stats``.
* ``job_spans``: a span for each launch, each rendezvous and each round, below the task's own.

The room may import ``agent_client`` and OpenTelemetry's API, which comes with Airflow. It opens no
connection of its own, keeps nothing, and no failure of it is one of the job.
"""
