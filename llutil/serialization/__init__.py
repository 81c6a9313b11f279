"""Functions and values on their way between processes.

``functions`` sends a function by value or by reference, ``by_value_pickle`` and ``unpicklable`` do
the pickling and name what cannot be pickled. ``json_values`` turns a rank's value into what XCom
can hold, ``array_values`` and ``npz_archive`` keep arrays. The room may import ``llutil.entrypoint``
and ``llutil.errors``; cloudpickle and numpy are imported when they are needed.
"""
