from __future__ import annotations

import argparse
import re

import pytest

from llutil.backends.table import ETCD
from llutil.command_line.errors import CommandError
from llutil.command_line.rendezvous import add_options, rendezvous_of


def given(*words: str, **environ: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, environ)
    return parser.parse_args(words)


def test_a_store_is_named_as_for_torchrun() -> None:
    words = ("--rdzv-endpoint", "e:1,f:2", "--rdzv_conf", "namespace=n, lease_ttl=3")
    for backend in ((), ("--rdzv-backend", "etcd-v3"), ("--rdzv_backend", "etcd")):
        place = rendezvous_of(given(*words, *backend))
        assert (place.backend, place.endpoint) == (ETCD, "e:1,f:2")
        assert (place.options["namespace"], place.options["lease_ttl"]) == ("n", 3.0)


def test_variables_are_defaults() -> None:
    place = rendezvous_of(given(PET_RDZV_ENDPOINT="z:1", PET_RDZV_BACKEND="zeus-adapter"))
    assert (place.backend.name, place.endpoint) == ("zeus-adapter", "z:1")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rdzv-backend", "c10d"], "torch's c10d rendezvous keeps no ledger.*: |etcd"),
        (["--rdzv-backend", "mine"], "--rdzv-backend is 'mine'; wanted one of etcd"),
        (["--rdzv-endpoint", "e"], "--rdzv-endpoint"),
        (["--rdzv-endpoint", "e:1", "--rdzv-conf", "tiemout=1"], "has 'tiemout', which"),
        (["--rdzv-endpoint", "e:1", "--rdzv-conf", "timeout"], "--rdzv-conf has 'timeout' without"),
    ],
)
def test_what_is_wrong_is_a_wrong_use(words: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text) as error:
        rendezvous_of(given(*words))
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("password=hunter2,pas", "no key with a value after the comma behind 'password'"),
        ("password=hunter2,,pas,a=1", "no key with a value after the comma behind 'password'"),
        ("password=hunter2,pas=", "no key with a value after the comma behind 'password'"),
        ("password=hunter2,=pas", "no key with a value after the comma behind 'password'"),
        ("password=hunter2,pas=5word", "something behind 'password' that backend 'etcd' does not"),
        ("password=hunter2,timeout=1,pas=5word", "something behind 'password' that backend 'etc"),
    ],
)
def test_a_password_is_not_repeated_nor_what_may_be_the_rest_of_one(text: str, told: str) -> None:
    with pytest.raises(CommandError, match=f"^--rdzv-conf has {told}") as error:
        rendezvous_of(given("--rdzv-endpoint", "e:1", "--rdzv-conf", text))
    assert not re.search(r"hunter2|pas\b|5word", str(error.value))
