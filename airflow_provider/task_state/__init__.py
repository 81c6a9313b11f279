"""What a running job says in its task's state, and what people ask of it there.

Airflow keeps values by key for each task instance (``task_state_store``, since 3.3), which the UI
and the REST API show and set. Here the key ``control`` takes orders, and other keys tell people how
the job is.

* ``orders``: what the value of ``control`` means.
* ``notes``: the values for people, and how often they are written.
* ``elastic_form``, ``seen_rounds``, ``curves``, ``elastic_note``, ``note_size``: the key
  ``elastic``, for programs: what is read again, what was seen, its value, and how it stays small.
* ``elastic_key``: when that key is written.
* ``store_work``: the requests of one task to its store, one after the other.
* ``store_thread``: makes them in a thread, so that nothing else waits for Airflow.
* ``job_state``: hears of the job from its agent, and hands orders on to it.

The room may import ``agent_client`` and everything below it. It decides nothing about the job, and
no failure of Airflow's API fails the job.
"""
