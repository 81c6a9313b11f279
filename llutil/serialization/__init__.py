"""How functions and values are turned into bytes or JSON that another process can read.

``functions`` pickles a function with its arguments, or only the arguments of one that is named.
``by_value_pickle`` does the pickling, ``made_modules`` gives a worker modules for what came by
value, ``annotation_names`` finds what annotations need of those, and ``unpicklable`` names what
cannot be pickled. ``json_values`` turns a rank's value into what XCom can hold, with
``place_in_value`` for the place of a problem. ``class_values`` says which values are kept by the
name of their class; ``array_values`` and ``npz_archive`` keep arrays. ``kept_value`` keeps on disk
what cannot be handed on. ``local_rank_macro`` puts a rank's number into its arguments. The room may
import ``llutil.entrypoint``, ``llutil.errors`` and ``llutil.events``; cloudpickle and numpy are
imported when they are needed.
"""
