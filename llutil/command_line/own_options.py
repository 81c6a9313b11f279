"""The options of ``llutil run`` that torchrun does not have: the other fields of ``LaunchConfig``.

They are made from the fields themselves: names, types, and the help from the class's docstring. So
a new field is a new option. Each has a variable too, as torchrun's options have: ``PET_`` and its
name. This module may import ``llutil.launcher.config``: it imports no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from llutil.command_line.rendezvous import configuration_in
from llutil.errors import ConfigError, Problem
from llutil.launcher.config import LaunchConfig

__all__ = ["OF_TORCHRUN", "add_own_options", "option_of", "own_fields", "own_values"]

OF_TORCHRUN: Mapping[str, str] = {
    "min_nodes": "nnodes",
    "max_nodes": "nnodes",
    "nproc_per_node": "nproc_per_node",
    "run_id": "rdzv_id",
    "role": "role",
    "rdzv_endpoint": "rdzv_endpoint",
    "rdzv_backend": "rdzv_backend",
    "rdzv_configs": "rdzv_conf",
    "rdzv_timeout": "rdzv_conf",
    "max_restarts": "max_restarts",
    "monitor_interval": "monitor_interval",
    "start_method": "start_method",
    "log_dir": "log_dir",
    "redirects": "redirects",
    "tee": "tee",
    "local_addr": "local_addr",
    "shutdown_timeout": "shutdown_timeout",
    "event_log_handler": "event_log_handler",
    "local_ranks_filter": "local_ranks_filter",
    "virtual_local_rank": "virtual_local_rank",
    "signals_to_handle": "signals_to_handle",
    "numa_options": "numa_binding",
    "duplicate_stdout_filters": "duplicate_stdout_filters",
    "duplicate_stderr_filters": "duplicate_stderr_filters",
}
"""The option of torchrun's (2.13) that makes a field, for the fields that it has an option for."""

_GRACE_PERIOD = "grace_period"
_NONE = "none"
_SEVERAL = {"chaos"}
"""Fields whose option may be given several times."""


class _Several(argparse.Action):
    """An option that may be given several times. Its variable counts if it is not given at all."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, _option: Any = None) -> None:
        """Take one more."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(before if isinstance(before, list) else ()), values])


def own_fields() -> list[str]:
    """The fields that are options of ours, in the order of ``LaunchConfig``."""
    return [field.name for field in fields(LaunchConfig) if field.name not in OF_TORCHRUN]


def option_of(field: str) -> str:
    """The option that makes a field, as it is typed."""
    return "--" + OF_TORCHRUN.get(field, field).replace("_", "-")


def add_own_options(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Give ``parser`` these options. ``environ`` has their defaults, as ``PET_CHECKPOINT_PATH``.

    An option that a newer torchrun has by the same name stays as it is there: its text is read as
    ours would be (``--log-line-prefix-template``, torch 2.14).
    """
    group = parser.add_argument_group("beyond torchrun")
    texts = _texts()
    for field in fields(LaunchConfig):
        if field.name in OF_TORCHRUN:
            continue
        with suppress(argparse.ArgumentError):
            group.add_argument(
                option_of(field.name),
                *([f"--{field.name}"] if "_" in field.name else []),
                action=_Several if field.name in _SEVERAL else "store",
                default=environ.get(f"PET_{field.name.upper()}"),
                metavar=_metavar(field.name),
                help=_help(texts.get(field.name, ""), field),
            )
    group.add_argument(
        "--grace-period",
        "--grace_period",
        default=environ.get("PET_GRACE_PERIOD"),
        metavar="SECONDS",
        help="What the operator calls --shutdown-timeout; it may have a fraction.",
    )


def own_values(given: argparse.Namespace) -> tuple[dict[str, Any], list[Problem]]:
    """The fields that were given by these options, and all that is wrong with their texts."""
    hints = get_type_hints(LaunchConfig)
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for option in (*own_fields(), _GRACE_PERIOD):
        text: str | list[str] | None = getattr(given, option)
        if text is None:
            continue
        field = "shutdown_timeout" if option == _GRACE_PERIOD else option
        try:
            found[field] = text if isinstance(text, list) else _value(text, hints[field])
        except ConfigError as error:
            problems.append(Problem(f"--{option.replace('_', '-')}", str(error)))
    return found, problems


def _value(text: str, hint: Any) -> Any:
    """What ``text`` means for a field of this type.

    :raises ConfigError: it means nothing there.
    """
    types = set(get_args(hint)) if isinstance(hint, UnionType) else {get_origin(hint) or hint}
    if NoneType in types and text.lower() == _NONE:
        return None
    for kind in (int, float):
        if kind in types:
            try:
                return kind(text)
            except ValueError:
                if not types & {str, float} - {kind}:
                    wanted = "a whole number" if kind is int else "a number"
                    raise ConfigError(f"is {text!r}; wanted {wanted}") from None
    if get_origin(Mapping[str, str]) in types:
        return configuration_in(text)
    return text


def _texts() -> dict[str, str]:
    """What the class's docstring says of each field. It is missing under ``python -OO``."""
    text = LaunchConfig.__doc__ or ""
    _, *params = text.split(":param ")
    pairs = (param.partition(": ") for param in params)
    return {name: " ".join(words.replace("``", "").split()) for name, _, words in pairs}


def _help(text: str, field: Field[Any]) -> str:
    default = "" if field.default in {MISSING, None, "", ()} else f" (default: {field.default})"
    return f"{text}{default}".replace("%", "%%")


def _metavar(name: str) -> str:
    hint = get_type_hints(LaunchConfig)[name]
    if hint is float:
        return "SECONDS"
    if name in _SEVERAL:
        return "TEXT"
    return {int: "N"}.get(hint, name.upper().rpartition("_")[2])
