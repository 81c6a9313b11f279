"""The command ``llutil``: runs jobs as torchrun does, and shows and steers those that run.

* ``main``: the parser, and the command that it names.
* ``jobs``: finds the jobs of this user on this host. ``ps``, ``status``, ``orders``, ``stacks``
  show and steer them.
* ``screen``: a table with colours on a terminal, plain lines elsewhere.
* ``errors``: what ends a command.

The room may import everything of ``llutil`` but its siblings above it. A command imports what it
needs when it runs: those that ask an agent import no torch, and start in a moment.
"""
