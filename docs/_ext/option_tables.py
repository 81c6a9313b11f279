"""Tables of what people may give: parameters, options of backends, connections, variables."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docs._ext.source import Constant, constants, fields, table
from llutil.backends.backend import Backend
from llutil.backends.options import Option
from llutil.backends.table import BACKENDS

__all__ = ["TABLES", "undocumented_variables", "variables"]

_DEFAULTS = {
    "retry_policy": "by class",
    "launch_retry": "3 attempts",
    "shutdown_timeout": "30",
    "gang_timeout": "a day",
    "results_threshold": "16 KiB",
}
"""Defaults that their value would not tell."""

_SET_BY_GANG = {"gang_nodes", "min_nodes"}
_VARIABLE = re.compile(r"(LLUTIL|TORCH|TORCHELASTIC|PET)_[A-Z_]*[A-Z]")


def _default(name: str, value: Any) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    if value is inspect.Parameter.empty:
        return "required"
    if value is None or value in ((), "", {}):
        return "none"
    if name in {"redirects", "tee"}:
        return "none"
    return f"`{value!r}`".replace("'", '"') if isinstance(value, str) else f"{value}"


def _parameters(
    owner: Any,
    texts: Mapping[str, str],
    templated: Iterable[str] = (),
    left_out: Iterable[str] = (),
) -> str:
    """The parameters of a callable, each with its default and what the docstring says."""
    rows = []
    for name, parameter in inspect.signature(owner).parameters.items():
        if name not in texts or name in left_out:
            continue
        text = re.sub(r" *\(templated[^)]*\)$", "", texts[name])
        told = text + (" *t*" if name in templated else "")
        rows.append((f"`{name}`", _default(name, parameter.default), told))
    return table("parameter", "default", "", rows=rows)


def _operator() -> str:
    from airflow_provider.operators.elastic import ElasticLaunchOperator
    from airflow_provider.parameters.operator_parameters import TEMPLATED

    texts = fields(ElasticLaunchOperator.__doc__ or "")
    return _parameters(ElasticLaunchOperator, texts, TEMPLATED, _SET_BY_GANG)


def _gang() -> str:
    from airflow_provider.operators.elastic import ElasticLaunchOperator

    return _parameters(ElasticLaunchOperator.gang, fields(ElasticLaunchOperator.gang.__doc__ or ""))


def _launch_config() -> str:
    from llutil.command_line.own_options import option_of
    from llutil.launcher.config import LaunchConfig

    texts = fields(LaunchConfig.__doc__ or "")
    rows = []
    for one in dataclasses.fields(LaunchConfig):
        made = one.default_factory is not dataclasses.MISSING
        value = one.default if one.default is not dataclasses.MISSING else inspect.Parameter.empty
        default = _default(one.name, () if made else value)
        rows.append((f"`{one.name}`", default, f"`{option_of(one.name)}`", texts[one.name]))
    return table("field", "default", "option of `llutil run`", "", rows=rows)


def _of(path: str, name: str) -> Callable[[], str]:
    """The parameters of a class or function."""

    def made() -> str:
        owner = getattr(__import__(path, fromlist=[name]), name)
        return _parameters(owner, fields(owner.__doc__ or ""))

    return made


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"


def _backends() -> str:
    def endpoint(one: Backend) -> str:
        more = "[,host:port...]" if one.several_servers else ""
        return f"host:port{more}{'[/chroot]' if one.chroot else ''}"

    heads = "`rdzv_backend`", "nodes meet through", "`rdzv_endpoint`", "in torchrun", "connection"
    rows: list[tuple[str, ...]] = [
        (
            _code(one.name),
            one.title,
            _code(endpoint(one)),
            _code(one.torchrun_name),
            _code(one.connection_type),
        )
        for one in BACKENDS.values()
    ]
    return table(*heads, rows=rows)


def _default_of(option: Option) -> str:
    if option.default is None:
        return "none"
    return _code(option.default) if isinstance(option.default, str) else f"{option.default:g}"


def _options(has_ledger: bool) -> Callable[[], str]:
    def made() -> str:
        known: dict[Option, list[str]] = {}
        for backend in BACKENDS.values():
            if backend.has_ledger is has_ledger:
                for option in backend.options:
                    known.setdefault(option, []).append(_code(backend.name))
        rows: list[tuple[str, ...]] = [
            (_code(option.key), _default_of(option), ", ".join(names), option.text)
            for option, names in known.items()
        ]
        return table("`rdzv_configs`", "default", "of", "", rows=rows)

    return made


def _connection(kind: str) -> Callable[[], str]:
    def made() -> str:
        from airflow_provider.get_provider_info import get_provider_info

        told = {one["connection-type"]: one for one in get_provider_info()["connection-types"]}
        one = told[kind]
        names = one["ui-field-behaviour"]["relabeling"]
        example = one["ui-field-behaviour"]["placeholders"]["host"]
        rows: list[tuple[str, ...]] = [
            ("`host`", names["host"], f"`{example}`"),
            ("`login`", names["login"], "who this deployment is to the store"),
            ("`password`", "Password", "the user's password"),
        ]
        rows += [
            (f"`extra.{key}`", field["label"], field["description"])
            for key, field in one["conn-fields"].items()
        ]
        return table("field", "in the form", "", rows=rows)

    return made


def _airflow_options() -> str:
    from airflow_provider.get_provider_info import get_provider_info

    options = get_provider_info()["config"]["elastic_launch"]["options"]
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", one["default"] or "none", one["description"]) for name, one in options.items()
    ]
    return table("`[elastic_launch]`", "default", "", rows=rows)


def variables() -> dict[str, Constant]:
    """The environment variables that a constant of the code names, by their names."""
    found: dict[str, Constant] = {}
    for one in constants():
        if _VARIABLE.fullmatch(one.value) and (one.value not in found or one.text):
            found[one.value] = one
    return dict(sorted(found.items()))


def undocumented_variables() -> list[str]:
    """Those whose constant has no docstring."""
    return [name for name, one in variables().items() if not one.text]


def _variables(*, of_torch: bool) -> Callable[[], str]:
    def made() -> str:
        rows: list[tuple[str, ...]] = [
            (f"`{name}`", one.text, f"`{one.module}`")
            for name, one in variables().items()
            if (not name.startswith("LLUTIL")) is of_torch
        ]
        return table("variable", "", "in the code", rows=rows)

    return made


TABLES: dict[str, Callable[[], str]] = {
    "operator": _operator,
    "gang": _gang,
    "launch-config": _launch_config,
    "retry-policy": _of("airflow_provider.retries.policy", "ElasticRetryPolicy"),
    "retry-row": _of("airflow_provider.retries.rules", "RetryRow"),
    "launch-retry": _of("airflow_provider.retries.launch_retry", "LaunchRetry"),
    "pod-override": _of("airflow_provider.kubernetes", "pod_override"),
    "backends": _backends,
    "ledger-options": _options(has_ledger=True),
    "torch-options": _options(has_ledger=False),
    "etcd-connection": _connection("etcd"),
    "zookeeper-connection": _connection("zookeeper"),
    "airflow-options": _airflow_options,
    "variables": _variables(of_torch=False),
    "torch-variables": _variables(of_torch=True),
}
