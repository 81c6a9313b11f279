"""Found in the place of torch where only the numpy matters that torch imports."""

import numpy as np  # noqa: F401 - that is all

raise ImportError("no torch in this world, but a numpy")
