"""A start method means one starter, or is refused."""

from __future__ import annotations

import pytest

from llutil.launcher.build_starter import new_starter


def test_a_name_without_a_starter_of_its_own_means_no_other() -> None:
    with pytest.raises(ValueError, match="no starter for start_method 'other'"):
        new_starter("other", None, inherited=set, nproc=1, mark="mark", server=None)
