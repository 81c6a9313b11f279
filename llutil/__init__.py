"""An elastic launcher for distributed PyTorch.

Start at :mod:`llutil.launcher`. The rooms of this package, each of which imports only those below
it:

* ``llutil.__main__`` and ``llutil.agent_process``: the agent process of the Airflow operator; spec
  in, events out.
* ``llutil.launcher``: what a caller sees; ``launch_agent``, ``LaunchConfig``, the worker-side API.
* ``llutil.agent``: runs the workers of one node. Needs torch.
* ``llutil.rendezvous``: how nodes agree on who is in a round.
* ``llutil.ledgers``: the stores that they agree through.
* the modules beside this file: values shared by all of the above, plain Python without torch.

Nothing is imported here, so that ``import llutil`` costs nothing while a DAG is parsed.
"""

__version__ = "0.1.0"
