"""``NumaOptions``: to which CPUs a rank is bound, by the place of its accelerator.

The fields and modes are those of ``torch.numa.binding.NumaOptions`` (2.13), which is accepted too.
This copy exists so that a configuration can be written without torch. This module may import only
the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["AFFINITY_MODES", "NumaOptions", "numa_options_of"]

AFFINITY_MODES = ("node", "socket", "exclusive", "core-complex")
"""The values of torch's ``AffinityMode``, which says what each means."""


@dataclass(frozen=True, slots=True)
class NumaOptions:
    """``affinity_mode`` is one of ``AFFINITY_MODES``. If the CPUs cannot be found, that fails the
    launch, or with ``should_fall_back_if_binding_fails`` binds no rank and is logged.
    """

    affinity_mode: str
    should_fall_back_if_binding_fails: bool = False


def numa_options_of(given: Any) -> Any:
    """``given`` as ``NumaOptions``: a mode alone, or torch's options. Anything else is returned as
    it is.
    """
    if isinstance(given, str):
        return NumaOptions(str(getattr(given, "value", given)))
    mode = getattr(given, "affinity_mode", None)
    fallback = getattr(given, "should_fall_back_if_binding_fails", None)
    if isinstance(given, NumaOptions) or not isinstance(mode, str) or fallback is None:
        return given
    return NumaOptions(str(getattr(mode, "value", mode)), fallback)
