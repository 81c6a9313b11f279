"""Which variables a forked worker cannot get any more, and how many threads the rest asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.agent.worker_side.fork_environment import (
    blas_threads,
    fork_server_environment,
    read_before,
    torch_threads,
    unsettable_after_fork,
)

SERVER = {"PATH": "/bin", "LANG": "C", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("worker", "names"),
    [
        ({}, []),
        ({"RANK": "1", "MASTER_ADDR": "here", "LLUTIL_EVENTS": "/dev/shm/x"}, []),
        ({"PATH": "/usr/bin", "HOME": "/root", "CUDA_VISIBLE_DEVICES": "1"}, []),
        ({"TORCHELASTIC_RESTART_COUNT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}, []),
        ({"NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "eth0"}, []),
        ({"OMP_NUM_THREADS": "4"}, []),
        ({"OPENBLAS_NUM_THREADS": "1"}, []),
        ({"GOTO_NUM_THREADS": "2"}, []),
        ({"OMP_NUM_THREADS": "many"}, ["OMP_NUM_THREADS"]),
        ({"OMP_PROC_BIND": "true"}, ["OMP_PROC_BIND"]),
        ({"MKL_NUM_THREADS": "4", "KMP_BLOCKTIME": "0"}, ["KMP_BLOCKTIME", "MKL_NUM_THREADS"]),
        ({"PYTHONHASHSEED": "7"}, ["PYTHONHASHSEED"]),
        ({"LD_PRELOAD": "libjemalloc.so"}, ["LD_PRELOAD"]),
        ({"MALLOC_ARENA_MAX": "1"}, ["MALLOC_ARENA_MAX"]),
        ({"LANG": "de_DE.UTF-8"}, ["LANG"]),
        ({"TORCH_LOGS": "dynamo"}, ["TORCH_LOGS"]),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, ["PYTORCH_CUDA_ALLOC_CONF"]),
    ],
)
def test_only_what_is_read_once_and_cannot_be_told_is_too_late(
    worker: dict[str, str], names: list[str]
) -> None:
    assert unsettable_after_fork(SERVER, SERVER | worker) == names


def test_what_the_server_alone_has_is_as_much_too_late_as_what_it_lacks() -> None:
    worker = {name: value for name, value in SERVER.items() if name not in {"LANG", "PATH"}}
    assert unsettable_after_fork(SERVER, worker) == ["LANG"]
    del worker["OMP_NUM_THREADS"]  # nobody knows what OpenMP would have done by itself
    assert unsettable_after_fork(SERVER, worker) == ["LANG", "OMP_NUM_THREADS"]


def test_what_a_rank_sets_after_its_libraries_have_read_it_is_named() -> None:
    now = {"OMP_NUM_THREADS": "4", "TORCH_LOGS": "+dynamo", "MINE": "1", "TMPDIR": "/x"}
    assert read_before({"OMP_NUM_THREADS": "1"}, now) == ["OMP_NUM_THREADS", "TORCH_LOGS"]
    later = {"TORCH_NCCL_BLOCKING_WAIT": "1", "OMP_NUM_THREADS": "1"}
    assert read_before({"OMP_NUM_THREADS": "1"}, later) == []


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=3)))
def test_an_environment_is_never_too_late_for_itself(environ: dict[str, str]) -> None:
    assert unsettable_after_fork(environ, dict(environ)) == []


@pytest.mark.parametrize(
    ("text", "threads"),
    [("4", 4), (" 4 ", 4), ("4,2", 4), ("0", None), ("-1", None), ("x", None), ("", None)],
)
def test_torch_gets_the_outermost_number_if_it_is_one(text: str, threads: int | None) -> None:
    assert torch_threads({"OMP_NUM_THREADS": text}) == threads


@pytest.mark.parametrize(
    ("environ", "threads"),
    [
        ({}, 8),
        ({"OPENBLAS_NUM_THREADS": "4"}, 4),
        ({"OPENBLAS_NUM_THREADS": "64"}, 8),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "1", "GOTO_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "0"}, 2),
    ],
)
def test_blas_gets_what_it_would_have_read(environ: dict[str, str], threads: int) -> None:
    assert blas_threads(environ, cores=8) == threads


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": ""}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.check=1"},
            "glibc.malloc.check=1:glibc.malloc.hugetlb=1",
        ),
    ],
    ids=["none", "empty", "the setting itself", "another setting"],
)
def test_a_fork_server_has_huge_pages_unless_somebody_has_said_otherwise(
    given: dict[str, str], settings: str
) -> None:
    found = fork_server_environment(SERVER | given)
    assert found.pop("GLIBC_TUNABLES") == settings
    assert found == SERVER | {"OPENBLAS_NUM_THREADS": "1"}
