"""What the text of a problem says of a wrong value: never what may be a secret.

A text that is refused goes to the log, and to Airflow's page of import errors, where more people
read it than may read the value.
"""

from __future__ import annotations

import os

from llutil.backends.endpoints import shown_endpoint

__all__ = ["kind_of", "shown"]


def kind_of(value: object) -> str:
    """What ``value`` is, without what it holds: ``a text``, or ``a value of type dict``."""
    return "a text" if isinstance(value, str) else f"a value of type {type(value).__name__}"


def shown(value: object) -> str:
    """``value`` itself if it is a number, a truth value, None, a text or a path. Of a text, what
    stands before an ``@`` is left out, since it may hold a password. Of anything else, only its
    type is shown.
    """
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return shown_endpoint(text) if isinstance(text, str) else kind_of(value)
