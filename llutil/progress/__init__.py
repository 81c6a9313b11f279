"""How ranks' progress is shown to people: one line on a terminal, or lines in a log.

``display`` chooses, ``terminal_line`` and ``log_lines`` are the two ways, ``words`` has the text of
both, and ``pace`` the numbers. This room may import only the standard library and
``llutil.system``. It starts no thread: a display draws when it is called.
"""
