"""An agent is only forked where it would start as a fresh one."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llutil.agent_server.client import NotForkedError
from llutil.agent_server.same_start import different_variables, server_environment
from tests.support.agent_servers import Server, wait_for


@pytest.mark.parametrize(
    "name",
    [
        *("TORCH_LOGS", "PYTORCH_ALLOC_CONF", "TORCHDYNAMO_VERBOSE", "TORCHINDUCTOR_CACHE_DIR"),
        *("PYTHONHASHSEED", "PYTHONPATH", "LD_PRELOAD", "MALLOC_ARENA_MAX", "TZ", "LC_ALL"),
        *("TMPDIR", "TMP", "HOME", "LOGLEVEL", "MKL_NUM_THREADS", "KMP_AFFINITY", "OMP_PROC_BIND"),
        *("CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_ORDER", "NCCL_DEBUG", "CUBLAS_WORKSPACE_CONFIG"),
    ],
)
def test_a_variable_that_is_read_once_must_be_equal(name: str) -> None:
    assert different_variables({}, {name: "x"}) == [name]
    assert different_variables({name: "x"}, {}) == [name]
    assert different_variables({name: "x"}, {name: "x"}) == []


@pytest.mark.parametrize(
    "name", ["CUDA_VISIBLE_DEVICES", "AIRFLOW_CTX_DAG_ID", "LLUTIL_MARK", "TORCH_NCCL_DEBUG", "A"]
)
def test_a_variable_that_is_read_later_may_differ(name: str) -> None:
    assert different_variables({}, {name: "x"}) == []
    assert different_variables({name: "x"}, {}) == []


def test_a_number_of_threads_may_differ_but_not_what_openmp_alone_understands() -> None:
    assert different_variables({}, {"OMP_NUM_THREADS": "2"}) == []
    assert different_variables({}, {"OMP_NUM_THREADS": "two"}) == ["OMP_NUM_THREADS"]


def test_what_a_server_has_makes_no_difference_to_the_task_that_it_has_it_of() -> None:
    task = {"PATH": "/bin", "TORCH_LOGS": "all", "HOME": "/", "AIRFLOW_CONN_X": "secret", "B": ""}
    assert server_environment(task) == {"PATH": "/bin", "TORCH_LOGS": "all", "HOME": "/"}
    assert different_variables(server_environment(task), task) == []


@pytest.mark.parametrize("name", ["TORCH_LOGS", "TZ"])
def test_other_variables_are_named_and_not_shown(server: Server, name: str) -> None:
    with pytest.raises(NotForkedError, match=rf"has other values of {name}$"):
        server.fork("", env={name: "secret"})


def test_an_environment_that_cannot_be_shown_is_refused(server: Server) -> None:
    with pytest.raises(NotForkedError, match=r"environment has \d+ bytes, of \d+ at most"):
        server.fork("", env={"MUCH": 125_000 * "x"})


@contextmanager
def _umask() -> Iterator[None]:
    before = os.umask(0o123)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (min(hard, 4096) if soft != 4096 else 0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@contextmanager
def _ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _cpus() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _scheduling() -> Iterator[None]:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def _dump() -> Iterator[None]:
    file = Path("/proc/self/coredump_filter")
    before = file.read_text()
    file.write_text("0x1")
    try:
        yield
    finally:
        file.write_text(f"0x{before}")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (_umask, "Umask"),
        (_limit, "limits"),
        (_ignored, "SigIgn"),
        (_blocked, "SigBlk"),
        (_cpus, "Cpus_allowed"),
        (_scheduling, "scheduling policy"),
        (_dump, "coredump_filter"),
    ],
)
def test_what_a_child_inherits_must_be_equal(server: Server, changed, name: str) -> None:
    with changed(), pytest.raises(NotForkedError, match=rf"process has other values of {name}$"):
        server.fork("")
    assert wait_for(server.fork("")) == 0
