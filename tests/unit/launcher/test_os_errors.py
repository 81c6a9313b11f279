"""What this process ran out of is told in one sentence."""

from __future__ import annotations

import errno
import os

import pytest

from llutil.errors import ConfigError, InfrastructureError
from llutil.launcher.os_errors import os_errors_explained
from tests.support.descriptors import few_descriptors
from tests.support.forks import in_a_fork


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "Too many"), r"may have \d+ open files \(ulimit -n\)"),
        (OSError(errno.ENFILE, "Too many"), r"no more open files to give \(fs.file-max\)"),
        (OSError(errno.EAGAIN, "Resource"), r"no further process or thread can be started"),
        (RuntimeError("can't start new thread"), r"no further process or thread can be started"),
        (OSError(errno.ENOSPC, "No space", "/logs/a"), r"no space left for /logs/a"),
        (OSError(errno.ENOSPC, "No space"), r"no space left for a file of the job"),
    ],
)
def test_what_is_used_up_is_named_with_its_limit(error: Exception, text: str) -> None:
    with pytest.raises(InfrastructureError, match=text) as caught, os_errors_explained():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [OSError(errno.EPERM, "no"), RuntimeError("boom"), ConfigError("x"), ValueError("x")]
)
def test_other_errors_go_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, os_errors_explained():
        raise error
    assert caught.value is error


@in_a_fork
def test_a_real_lack_of_descriptors_is_one() -> None:
    with few_descriptors(3), pytest.raises(InfrastructureError), os_errors_explained():
        [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
