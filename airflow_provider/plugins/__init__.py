"""The tab *Elastic* of a task instance in Airflow's UI.

* ``elastic_plugin``: what Airflow loads, by the entry point ``airflow.plugins``.
* ``static_page``: serves the files of the page, and nothing else.
* ``page``: the page itself: HTML, style sheets and modules of JavaScript, without a build step.

The page has its data and its buttons from Airflow's REST API, in the viewer's own session, so that
rights are Airflow's. No endpoint of ours knows anything of a job: the room refuses to read the
database, to ask a job, and to check a right by itself.

Every component of Airflow loads plugins, so this room is cheap to import: it may import Airflow's
base class of plugins and the standard library; starlette, which comes with Airflow's api-server,
when the first file is asked for.
"""
